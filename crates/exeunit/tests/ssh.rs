//! A stock OpenSSH server and client in payloads, terminals and privilege separation included.

mod rig;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gvpn_model::NetworkId;
use rig::{Activity, Rig, assert_ok, deploy_and_start, network, user::run_as_user_with_ids};

/// Copies a program of the host and the libraries it needs.
fn install(program: &str, root: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = root.join(&file[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

fn ssh_image(rig: &Rig) -> PathBuf {
    let root = rig.busybox_image();
    for program in ["/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/ssh-keygen"] {
        install(program, &root);
    }
    for extra in ["/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth"] {
        if Path::new(extra).exists() {
            install(extra, &root);
        }
    }
    fs::create_dir_all(root.join("run/sshd")).unwrap();
    let users = "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:101:sshd:/run/sshd:/bin/false\n\
                 alice:x:1000:1000:alice:/home/alice:/bin/sh\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nsshd:x:101:\nalice:x:1000:\n").unwrap();
    fs::write(root.join("etc/shadow"), "root:*:19000::::::\nalice:*:19000::::::\n").unwrap();
    root
}

async fn start(rig: &Rig, id: NetworkId, n: u32) -> Activity {
    let activity = rig.spawn(rig.config(&ssh_image(rig))).await;
    let networks = vec![network(id, n)];
    assert_ok(&activity.script(&deploy_and_start(&networks), networks).await);
    activity
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_sshd_serves() {
    let rig = Rig::new();
    let id = NetworkId::random();
    let server = start(&rig, id, 2).await;
    let client = start(&rig, id, 3).await;
    client
        .shell("mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        .await;
    let key = client.shell("cat /root/.ssh/id_ed25519.pub").await;
    let several_users = server.shell("cat /proc/self/uid_map").await.contains("65536");
    let mut users = vec!["root"];
    if several_users {
        users.push("alice");
    }
    server.shell("mkdir -p /etc/ssh /home/alice && ssh-keygen -q -A").await;
    for user in &users {
        let home = if *user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        server
            .shell(&format!(
                "mkdir -p {home}/.ssh && echo '{}' > {home}/.ssh/authorized_keys && \
                 chmod 700 {home} {home}/.ssh && chown -R {user}:{user} {home}",
                key.trim()
            ))
            .await;
    }
    server
        .shell("/usr/sbin/sshd -f /dev/null -o UsePAM=no -o PermitRootLogin=yes -E /root/log")
        .await;
    let options = "-o StrictHostKeyChecking=no -o BatchMode=yes -o ConnectTimeout=20";
    for user in users {
        let to = format!("{user}@10.20.0.2");
        let result =
            client.shell_until(&format!("ssh {options} {to} 'id -un; cat >&2' </dev/null")).await;
        assert_eq!(result.trim(), user);
        let tty =
            client.shell(&format!("ssh -tt {options} {to} 'tty; stty size' </dev/null")).await;
        assert!(tty.contains("/dev/pts/"), "{tty}");
    }
    let copied = client
        .shell(&format!("head -c 3000000 /dev/urandom > /f; ssh {options} root@10.20.0.2 'cat > /f' < /f; md5sum < /f"))
        .await;
    assert_eq!(server.shell("md5sum < /f").await, copied);
    client.unit.terminate().await;
    server.unit.terminate().await;
}

#[test]
fn a_stock_sshd_serves_a_user_with_ids() {
    run_as_user_with_ids("a_stock_sshd_serves");
}
