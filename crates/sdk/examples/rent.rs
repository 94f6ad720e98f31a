//! A network, two payloads in it, and the way to one of them from here.
//!
//! Needs a daemon (`GVPN_API_URL` and `GVPN_APPKEY`, or `YAGNA_API_URL` and `YAGNA_APPKEY`) that knows
//! providers, and an image with busybox in its registry: `cargo run -p gvpn-sdk --example rent TAG`.

use gvpn_sdk::{Client, Wish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let image = std::env::args().nth(1).unwrap_or_else(|| "golem/alpine:latest".to_owned());
    let client = Client::from_env()?;
    let network = client.create_network("192.168.0.0/24").await?;
    let web = client.rent(Wish::image(&image).named("web"), Some(&network)).await?;
    let other = client.rent(Wish::image(&image), Some(&network)).await?;

    web.run("mkdir -p /tmp/www && echo hello > /tmp/www/page && busybox httpd -p 80 -h /tmp/www")
        .await?;
    print!("from payload to payload: {}", other.run("wget -qO- http://web/page").await?.stdout);

    let address = web.ip().ok_or("it is in the network")?;
    let mut stream = network.connect(address, 80).await?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    print!("through the gate: {}", answer.lines().last().unwrap_or_default());
    println!();

    other.end().await?;
    web.end().await?;
    network.remove().await?;
    Ok(())
}
