//! `gvpn provider` against a provider's daemon: what is offered follows what is typed.

use std::{
    fs::File,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use gvpn_lab::Process;
use serde_json::Value;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

struct Provider {
    dir: TempDir,
    process: Process,
}

impl Provider {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        // One runtime, one offer.
        std::fs::write(dir.path().join("config.toml"), "[provider]\nruntimes = [\"sandbox\"]\n")
            .unwrap();
        let process = daemon(dir.path());
        Self { dir, process }
    }

    /// Kills the daemon and starts another in its place, with other settings.
    fn restart(&mut self, settings: &str) {
        self.process.kill().unwrap();
        std::fs::remove_file(self.dir.path().join("api.url")).unwrap();
        std::fs::write(self.dir.path().join("config.toml"), settings).unwrap();
        self.process = daemon(self.dir.path());
    }

    fn run(&self, args: &str) -> Output {
        command(self.dir.path()).args(args.split(' ')).output().unwrap()
    }

    fn said(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn refused(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The coefficients of the offers that are made now.
    fn prices(&self) -> Vec<Vec<f64>> {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        let (url, key) = (read("api.url"), read("appkey"));
        let output = Command::new("curl")
            .args(["-sf", "-H", &format!("Authorization: Bearer {}", key.trim())])
            .arg(format!("{}/gvpn/v1/provider/offers", url.trim()))
            .output()
            .unwrap();
        let offers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let coefficients = |o: &Value| {
            let all = o["properties"]["golem.com.pricing.model.linear.coeffs"].as_array().unwrap();
            all.iter().map(|c| c.as_f64().unwrap()).collect()
        };
        offers.iter().map(coefficients).collect()
    }

    fn until_offered(&self, wanted: &[[f64; 3]]) {
        let mut seen = Vec::new();
        let wanted: Vec<Vec<f64>> = wanted.iter().map(|w| w.to_vec()).collect();
        until(&format!("{wanted:?} is offered"), || {
            seen = self.prices();
            seen.sort_by(|a, b| a.partial_cmp(b).unwrap());
            (seen == wanted).then_some(())
        });
    }
}

fn daemon(dir: &Path) -> Process {
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = command(dir);
    command.args(["daemon", "--role", "provider", "--api", "127.0.0.1:0"]);
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::null()).stderr(log);
    let process = Process::from(command.spawn().unwrap());
    until("the daemon serves its API", || dir.join("api.url").exists().then_some(()));
    process
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gvpn"));
    command.arg("--data-dir").arg(dir).stdin(Stdio::null());
    for name in ["GVPN_API_URL", "GVPN_APPKEY", "YAGNA_API_URL", "YAGNA_APPKEY", "GVPN_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < LONG, "it did not come about that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn offers_follow_the_presets() {
    let provider = Provider::start();
    assert!(provider.said("provider preset ls").contains("sandbox"));
    provider.until_offered(&[[0.0, 0.0, 0.0]]);

    provider.said("provider preset create paid --per-hour 3.6 --per-cpu-hour 7.2 --start 0.5");
    provider.until_offered(&[[0.0, 0.0, 0.0], [0.001, 0.002, 0.5]]);
    provider.said("provider preset deactivate sandbox");
    provider.until_offered(&[[0.001, 0.002, 0.5]]);
    provider.said("provider preset update paid --per-hour 7.2");
    provider.until_offered(&[[0.002, 0.002, 0.5]]);
    provider.said("provider preset create later --start 9 --inactive");
    provider.until_offered(&[[0.002, 0.002, 0.5]]);
    provider.said("provider preset activate later");
    provider.until_offered(&[[0.0, 0.0, 9.0], [0.002, 0.002, 0.5]]);
    provider.said("provider preset rm later");
    provider.until_offered(&[[0.002, 0.002, 0.5]]);

    let listed = provider.said("--json provider preset ls");
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let active: Vec<_> = listed.iter().map(|p| (&p["name"], &p["active"])).collect();
    assert_eq!(listed.len(), 2, "{active:?}");

    for (args, reason) in [
        ("provider preset create paid", "already"),
        ("provider preset create x --runtime none", "only: sandbox"),
        ("provider preset create x --start=-1", "0 or more"),
        ("provider preset update none --start 1", "no preset `none`"),
        ("provider preset activate none", "no preset `none`"),
        ("provider preset rm none", "no preset `none`"),
    ] {
        let message = provider.refused(args);
        assert!(message.contains(reason), "{args}: {message}");
    }
}

#[test]
fn a_provider_offers_at_most_what_it_may_and_nothing_when_it_takes_no_more() {
    let provider = Provider::start();
    for i in 1..32 {
        provider.said(&format!("provider preset create p{i} --start {i}"));
    }
    let message = provider.refused("provider preset create p32");
    assert!(message.contains("32 presets are active already"), "{message}");
    provider.said("provider preset create p32 --inactive");
    until("32 are offered", || (provider.prices().len() == 32).then_some(()));

    provider.said("provider set --max-activities 0");
    until("nothing is offered", || provider.prices().is_empty().then_some(()));
    let me: Value = serde_json::from_str(&provider.said("--json status")).unwrap();
    let only = format!("provider set --max-activities 2 --only {}", me["nodeId"].as_str().unwrap());
    assert!(provider.said(&only).contains("max activities: 2"));
    until("32 are offered again", || (provider.prices().len() == 32).then_some(()));
    assert!(provider.said("provider set --anybody").contains("works for: anybody"));
    assert!(provider.refused("provider set").contains("--anybody"));
}

#[test]
fn what_is_set_is_kept_and_goes_before_the_configuration_until_it_is_reset() {
    let mut provider = Provider::start();
    assert!(!provider.said("provider show").contains("set here"));
    let said = provider.said("provider set --max-activities 3");
    assert!(said.contains("set here") && said.contains("max activities: 3"), "{said}");

    provider.restart("[provider]\nruntimes = [\"sandbox\"]\nmax_activities = 9\nmem_gib = 2.5\n");
    let said = provider.said("provider show");
    assert!(said.contains("max activities: 3") && said.contains("mem gib: 2.5"), "{said}");
    assert!(said.contains("forgets it): max activities\n"), "{said}");

    let said = provider.said("provider reset");
    assert!(said.contains("max activities: 9") && !said.contains("set here"), "{said}");
    provider.restart("[provider]\nruntimes = [\"sandbox\"]\n");
    assert!(provider.said("provider show").contains("max activities: 32"));
}
