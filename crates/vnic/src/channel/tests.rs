use std::io::{Read, Seek, Write};

use super::*;

fn file_with(text: &str) -> OwnedFd {
    let mut file = tempfile();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn tempfile() -> std::fs::File {
    let fd = nix::sys::memfd::memfd_create("channel", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    fd.unwrap().into()
}

fn text_of(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn file_descriptors_stay_with_their_messages() {
    let (a, b) = pair().unwrap();
    let (a, mut b) = (Channel::new(a), Channel::new(b));
    a.send(&"none", vec![]).unwrap();
    a.send(&"one", vec![file_with("first")]).unwrap();
    a.send(&"none again", vec![]).unwrap();
    a.send(&"two", vec![file_with("second"), file_with("third")]).unwrap();
    drop(a);
    let counts = [("none", 0), ("one", 1), ("none again", 0), ("two", 2)];
    let mut texts = vec![];
    for (want, count) in counts {
        let (message, fds): (String, _) = b.receive().unwrap().unwrap();
        assert_eq!((message.as_str(), fds.len()), (want, count));
        texts.extend(fds.into_iter().map(text_of));
    }
    assert_eq!(texts, ["first", "second", "third"]);
    assert!(b.receive::<String>().unwrap().is_none());
}

#[tokio::test]
async fn large_messages_cross_between_tokio_and_blocking_ends() {
    let (a, b) = pair().unwrap();
    let echo = std::thread::spawn(move || {
        let mut channel = Channel::new(b);
        while let Some((text, fds)) = channel.receive::<String>().unwrap() {
            channel.send(&text, fds).unwrap();
        }
    });
    let (sender, mut receiver) = open(a).unwrap();
    let text = "x".repeat(3 << 20);
    let (size, feeder) = (text.len(), sender.clone());
    let feeding = tokio::spawn(async move {
        for _ in 0..4 {
            feeder.send(&text, vec![file_with("f")]).await.unwrap();
        }
    });
    for _ in 0..4 {
        let (back, fds): (String, _) = receiver.receive().await.unwrap().unwrap();
        assert_eq!((back.len(), fds.len()), (size, 1));
    }
    feeding.await.unwrap();
    sender.flush().await;
    drop((sender, receiver));
    tokio::task::spawn_blocking(move || echo.join().unwrap()).await.unwrap();
}

#[test]
fn nonsense_is_an_error() {
    let (a, b) = pair().unwrap();
    let mut b = Channel::new(b);
    std::fs::File::from(a).write_all(&[0xff; 64]).unwrap();
    assert!(b.receive::<String>().is_err());
}
