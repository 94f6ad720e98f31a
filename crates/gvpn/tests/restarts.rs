//! A requestor's daemon that is killed after each step of an agreement and its activity, and started
//! anew: what comes next works as if nothing had been.
//!
//! Needs what payloads need: user namespaces and a TUN device.

mod rig;

use rig::{Daemon, Rig, eventually, run};
use serde_json::{Value, json};

/// What is done one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Network,
    Agreement,
    Activity,
    Member,
    Deploy,
    Start,
    /// A command is begun, and has not ended.
    Begin,
    /// It has.
    Finish,
    Destroy,
    Terminate,
}

const STEPS: [Step; 10] = [
    Step::Network,
    Step::Agreement,
    Step::Activity,
    Step::Member,
    Step::Deploy,
    Step::Start,
    Step::Begin,
    Step::Finish,
    Step::Destroy,
    Step::Terminate,
];

/// What a requestor has come by.
#[derive(Default)]
struct Course {
    net: String,
    agreement: String,
    activity: String,
    batch: String,
    /// How long the command takes, in seconds.
    pause: u32,
}

impl Course {
    async fn take(&mut self, step: Step, requestor: &Daemon, provider: &Daemon) {
        let ip = "10.90.0.2";
        match step {
            Step::Network => self.net = requestor.network("10.90.0.0/24").await,
            Step::Agreement => {
                let ask = json!({ "provider": provider.id, "image": "busybox" });
                self.agreement = requestor.agreement(ask).await;
            }
            Step::Activity => self.activity = requestor.activity_under(&self.agreement).await,
            Step::Member => requestor.add_node(&self.net, provider, ip).await,
            Step::Deploy => self.works(requestor, rig::deploy(&self.net, ip)).await,
            Step::Start => self.works(requestor, json!({ "start": {} })).await,
            Step::Begin => {
                let wait = format!("echo begun; sleep {}; echo done", self.pause);
                let script = json!([run("/bin/sh", &["-c", &wait])]);
                let (status, batch) = requestor.begin(&self.activity, script).await;
                assert_eq!(status, 200, "{batch}");
                self.batch = batch.as_str().unwrap().to_owned();
                let path = format!("/activity-api/v1/activity/{}/command", self.activity);
                // A short one may have ended by now.
                eventually("it runs", async || {
                    self.pause == 0 || requestor.get(&path).await.1["command"] == "run"
                })
                .await;
            }
            Step::Finish => {
                let results = requestor.finish(&self.activity, &self.batch).await;
                assert_eq!(results[0]["stdout"], "begun\ndone\n", "{results:?}");
                let seen = requestor.sh(&self.activity, "ip -4 addr show dev eth0").await.unwrap();
                assert!(seen.contains(ip), "{seen}");
            }
            Step::Destroy => {
                let path = format!("/activity-api/v1/activity/{}", self.activity);
                assert_eq!(requestor.delete(&path).await, (200, Value::Null));
                assert_eq!(requestor.state(&self.activity).await, "Terminated");
            }
            Step::Terminate => {
                let path = format!("/gvpn/v1/agreements/{}/terminate", self.agreement);
                let (status, answer) = requestor.post(&path, json!({ "reason": "done" })).await;
                assert_eq!(status, 200, "{answer}");
                for daemon in [requestor, provider] {
                    let path = format!("/gvpn/v1/agreements/{}", self.agreement);
                    eventually("both know that it has ended", async || {
                        daemon.get(&path).await.1["state"] == "Terminated"
                    })
                    .await;
                }
            }
        }
    }

    async fn works(&self, requestor: &Daemon, command: Value) {
        let results = requestor.exec(&self.activity, json!([command])).await;
        assert!(results.iter().all(|result| result["result"] == "Ok"), "{results:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requestor_that_is_killed_at_any_stage_goes_on() {
    let rig = Rig::new().await;
    let (mut requestor, provider) = (rig.requestor().await, rig.provider("a").await);
    for killed_after in STEPS {
        println!("killed after {killed_after:?}");
        let pause = if killed_after == Step::Begin { 5 } else { 0 };
        let mut course = Course { pause, ..Course::default() };
        for step in STEPS {
            course.take(step, &requestor, &provider).await;
            if step == killed_after {
                requestor.kill();
                requestor.start().await;
            }
        }
        // What has ended before stays so.
        assert_eq!(requestor.state(&course.activity).await, "Terminated");
        let network = format!("/net-api/v1/net/{}", course.net);
        assert_eq!(requestor.delete(&network).await, (200, Value::Null));
    }
    eventually("nothing is left at the provider", async || {
        std::fs::read_dir(provider.dir().join("activities")).map_or(0, Iterator::count) == 0
            && provider.get("/gvpn/v1/status").await.1["memberships"] == 0
    })
    .await;
}
