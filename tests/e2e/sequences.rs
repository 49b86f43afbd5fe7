//! A reload ends where a fresh start would: random sequences of changes to the files of a running proxy, with requests
//! under way, and then another proxy over the same files, which has to say and do the same.
//!
//! What differs by design is not in the pool: an object that was good and is broken keeps its last good version, so
//! whatever is broken on the way is mended before the two are compared. A seed that fails is printed.
//!
//! `PILOTLIGHT_RELOADS=200` runs so many sequences, `PILOTLIGHT_RELOADS_SEED=17` one of them.

mod pool;

use crate::support::proxy::{Directory, Setup};
use crate::support::secure::{Dial, shown};
use crate::support::wait::becomes_true;
use crate::support::{Proxy, Response, Target, eventually, seconds, yaml};
use fastrand::Rng;
use pool::{Cast, HOSTS, PORTS, Versions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Files that objects are spread over.
const FILES: usize = 5;
const STEPS: usize = 8;
/// Sequences of the short form.
const SHORT: u64 = 2;

#[test]
fn a_reload_ends_where_a_fresh_start_would() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("PILOTLIGHT_RELOADS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PILOTLIGHT_RELOADS").unwrap_or(SHORT),
    };
    let cast = Cast::new();
    let objects = cast.objects();
    for seed in seeds {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sequence(seed, &objects)));
        if let Err(panic) = failed {
            eprintln!("PILOTLIGHT_RELOADS_SEED={seed} cargo test --test e2e a_reload_ends_where");
            std::panic::resume_unwind(panic);
        }
    }
}

/// One object in the files.
#[derive(Clone, Copy)]
struct Placed {
    file: usize,
    version: usize,
    /// With a field that nobody knows.
    broken: bool,
}

/// What is in the directory.
struct Files<'a> {
    directory: Directory,
    objects: &'a [Versions],
    placed: BTreeMap<usize, Placed>,
    names: [String; FILES],
    /// A file that is no YAML for now.
    torn: Option<usize>,
    step: usize,
    written: BTreeMap<String, String>,
    said: Vec<String>,
}

impl Files<'_> {
    /// Changes something; nothing is written yet.
    fn change(&mut self, random: &mut Rng) {
        let object = random.usize(..self.objects.len());
        let version = random.usize(..self.objects[object].len());
        let file = random.usize(..FILES);
        let said = match (random.u8(..10), self.placed.get_mut(&object)) {
            (_, None) => {
                self.placed.insert(object, Placed { file, version, broken: false });
                format!("+{object}.{version} in {file}")
            }
            (0..=3, Some(placed)) => {
                placed.version = version;
                format!("~{object}.{version}")
            }
            (4..=5, Some(_)) => {
                self.placed.remove(&object);
                format!("-{object}")
            }
            (6, Some(placed)) => {
                placed.file = file;
                format!("{object} to {file}")
            }
            (7, Some(placed)) => {
                placed.broken ^= true;
                format!("{object} broken: {}", placed.broken)
            }
            (8, _) => {
                let name =
                    format!("{}-{}.yaml", ["a", "m", "z"][random.usize(..3)], self.step * FILES + file);
                self.names[file].clone_from(&name);
                format!("{file} is {name}")
            }
            _ => {
                self.torn = if self.torn.is_none() { Some(file) } else { None };
                format!("torn: {:?}", self.torn)
            }
        };
        self.said.push(said);
    }

    fn mend(&mut self) {
        self.torn = None;
        self.placed.values_mut().for_each(|placed| placed.broken = false);
        self.said.push("mended".to_owned());
    }

    /// Writes what is other than before, and last what tells that it acts.
    fn write(&mut self) {
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for (file, name) in self.names.iter().enumerate() {
            let mut text = String::new();
            for (object, placed) in self.placed.iter().filter(|(_, placed)| placed.file == file) {
                let good = &self.objects[*object][placed.version];
                text += &if placed.broken { good.replacen("\nspec:", "\nspecs:", 1) } else { good.clone() };
            }
            if self.torn == Some(file) {
                text += "a: {b: [\n";
            }
            wanted.insert(name.clone(), text);
        }
        self.step += 1;
        let told = format!("- directResponse: {{status: 200, body: {{string: 'step {}'}}}}", self.step);
        let told = yaml::virtual_service("told", "told.test", &told).replace("[edge]", "[mesh]");
        for name in self.written.keys().filter(|name| !wanted.contains_key(*name)) {
            std::fs::remove_file(self.directory.path().join(name)).unwrap();
        }
        for (name, text) in wanted.iter().filter(|(name, text)| self.written.get(*name) != Some(*text)) {
            self.directory.write(name, text);
        }
        self.directory.write("told.yaml", &told);
        self.written = wanted;
    }

    fn acts(&self, proxy: &Proxy) {
        let (mesh, told) = (proxy.mesh(), format!("step {}", self.step));
        eventually(&format!("{told} acts"), seconds(20), || {
            (mesh.get("/told").host("told.test").send().text() == told).then_some(())
        });
    }
}

fn setup(directory: &Directory) -> Setup {
    let ports = PORTS.map(|port| format!("{port}:0"));
    let setup = Proxy::over(directory.path()).workers(2).access_log("json");
    ports.iter().fold(setup, |setup, map| setup.args(["--port-map", map]))
}

fn sequence(seed: u64, objects: &[Versions]) {
    let mut random = Rng::with_seed(seed);
    let mut files = Files {
        directory: Directory::new(),
        objects,
        placed: BTreeMap::new(),
        names: std::array::from_fn(|file| format!("f-{file}.yaml")),
        torn: None,
        step: 0,
        written: BTreeMap::new(),
        said: Vec::new(),
    };
    (0..random.usize(0..8)).for_each(|_| files.change(&mut random));
    files.write();
    let proxy = setup(&files.directory).start();
    files.acts(&proxy);
    for _ in 0..STEPS {
        files.said.push("|".to_owned());
        let under_way: Vec<_> = if random.bool() { under_way(&proxy) } else { Vec::new() };
        (0..random.usize(1..4)).for_each(|_| files.change(&mut random));
        files.write();
        // Sometimes the next change comes while this one is still looked at.
        if random.u8(..4) > 0 {
            files.acts(&proxy);
        }
        under_way.into_iter().for_each(|one| one.join().expect("whoever asks is answered"));
    }
    files.mend();
    files.write();
    files.acts(&proxy);
    let changes = files.said.join(" ");
    let fresh = setup(&files.directory).start();
    same(&proxy, &fresh, &changes);
    nothing_is_left(&proxy, &changes);
    nobody_was_cut_off(&proxy, &changes);
}

/// Requests that a change may meet anywhere.
fn under_way(proxy: &Proxy) -> Vec<JoinHandle<()>> {
    let mesh = proxy.mesh();
    let asked = [
        ("fa", "/?delay=300ms"),
        ("fb", "/?delay=150ms"),
        ("fa", "/"),
        ("se.test", "/fail"),
        ("svc", "/fail"),
    ];
    let ask = |(host, path): (&'static str, &'static str)| {
        std::thread::spawn(move || {
            mesh.get(path).host(host).timeout(seconds(20)).send();
        })
    };
    asked.map(ask).into()
}

/// Whether the two are the same, as soon as both are at rest.
#[track_caller]
fn same(proxy: &Proxy, fresh: &Proxy, changes: &str) {
    let compare = |what: &str, look: &dyn Fn(&Proxy) -> String| {
        let mut seen = (String::new(), String::new());
        let agree = becomes_true(seconds(15), || {
            seen = (look(proxy), look(fresh));
            seen.0 == seen.1
        });
        let differs = |(one, other): &(String, String)| {
            let both = one.lines().zip(other.lines()).filter(|(one, other)| one != other);
            both.take(10).map(|(one, other)| format!("  {one}\n  {other}\n")).collect::<String>()
        };
        let lines = (seen.0.lines().count(), seen.1.lines().count());
        assert!(agree, "{what}, then of a fresh start, after {changes}:\n{}{lines:?}", differs(&seen));
    };
    compare("configuration", &|proxy| {
        let page = page(proxy, "/config_dump");
        let last = &page["last_reload"];
        let bad = last["quarantined"].as_array().unwrap();
        assert!(bad.iter().all(|name| name.as_str().unwrap().ends_with("/bad")), "{bad:?} in the pool");
        let told = [&page["configuration"], &last["problems"], &last["quarantined"], &last["refused"]];
        told.map(|part| format!("{part:#}")).join("\n")
    });
    compare("listeners", &|proxy| format!("{:?}", listeners(proxy).into_keys().collect::<Vec<_>>()));
    compare("answers", &answers);
    compare("functions", &|proxy| functions(proxy));
    compare("metrics", &|proxy| {
        let metrics = proxy.metrics();
        let names = ["pilotlight_config_quarantined", "pilotlight_held", "pilotlight_held_bytes"];
        names.map(|name| format!("{name} {}", metrics.sum(name, &[]))).join("\n")
    });
}

fn page(proxy: &Proxy, path: &str) -> Value {
    proxy.admin().get(path).send().expect(200).json()
}

/// Where it listens now, by its own account.
fn listeners(proxy: &Proxy) -> BTreeMap<String, SocketAddr> {
    let mut bound: BTreeMap<SocketAddr, String> = BTreeMap::new();
    let word = |text: &str| text.split(" (").next().unwrap().trim().to_owned();
    for line in proxy.log().lines() {
        let Some((_, said)) = line.split_once("pilotlight::app::engine: ") else { continue };
        if let Some(rest) = said.strip_prefix("no longer listening on ") {
            bound.remove(&rest.split(": ").next().unwrap().parse().unwrap());
        } else if let Some((address, name)) =
            said.strip_prefix("listening on ").and_then(|r| r.split_once(": "))
        {
            bound.insert(address.parse().unwrap(), word(name));
        } else if let Some((address, name)) = said.split_once(" is now ") {
            bound.insert(address.parse().unwrap(), word(name));
        }
    }
    bound.into_iter().map(|(address, name)| (name, address)).collect()
}

/// What everybody is answered everywhere, and what the access log says of it.
fn answers(proxy: &Proxy) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let (mut asked, mut all) = (Vec::new(), Vec::new());
    for (name, address) in listeners(proxy) {
        for host in HOSTS {
            if name == "gateway:7443" {
                all.push(format!("{name} {host}: {}", encrypted(address, host)));
                continue;
            }
            for path in ["/", "/x", "/denied"] {
                let number = format!("?number={}.", COUNT.fetch_add(1, Ordering::Relaxed));
                let request = Target::at(address).get(&format!("{path}{number}")).host(host);
                asked.push((format!("{name} {host}{path}"), request.timeout(seconds(20)).send(), number));
            }
        }
    }
    // Lines are written in lots.
    let told = asked.into_iter().map(|(what, answer, number)| {
        let line: Value = serde_json::from_str(&proxy.access_line(&[&number])).unwrap();
        format!("{what}: {}", outcome(&answer, &line, &number))
    });
    all.extend(told);
    all.join("\n")
}

fn outcome(answer: &Response, line: &Value, number: &str) -> String {
    let told = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let (flags, details) = (told("response_flags"), told("response_code_details"));
    if details.starts_with("function_cra") || details.starts_with("function_exited_early") {
        return "the function fails".to_owned();
    }
    let body = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(json) => json["name"].to_string() + &json["path"].to_string(),
        Err(_) => answer.text(),
    };
    let (route, cluster) = (told("route_name"), told("upstream_cluster"));
    let (location, added) = (answer.header("location").replace(number, ""), answer.header("x-a"));
    format!("{} {flags} {details} {route} {cluster} {location}{added} {body}", answer.status)
}

fn encrypted(address: SocketAddr, host: &str) -> String {
    let dial = Dial::new(&[], None);
    match dial.to(address, host) {
        Ok(stream) => format!("{:?} {:?}", shown(&stream).len(), dial.get(address, host).ok()),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// What there is of functions, as far as it does not depend on who has asked.
fn functions(proxy: &Proxy) -> String {
    let page = page(proxy, "/functions");
    let all = page["functions"].as_array().unwrap().iter().filter(|one| one["removed"] == false);
    let told = all.map(|one| {
        let number = |name: &str| one[name].as_u64().unwrap();
        let (min, max) = (number("min_scale"), number("max_scale"));
        let states: Vec<_> =
            one["instances"].as_array().unwrap().iter().map(|i| i["state"].as_str().unwrap()).collect();
        let there = states.iter().filter(|state| ["ready", "frozen"].contains(state)).count() as u64;
        let bounded = max == 0 || states.len() as u64 <= max;
        let kept = there >= min || one["runs"]["refused"].is_string();
        let [revision, runs] = [&one["revision"], &one["runs"]];
        let rest = [&one["concurrency"], &one["waiting"], &one["starved"]];
        format!("{revision} {runs} {min} {max} {rest:?} bounded: {bounded}, kept: {kept}")
    });
    told.collect::<Vec<_>>().join("\n")
}

/// Nothing waits, nothing is in flight, and every process belongs to somebody.
#[track_caller]
fn nothing_is_left(proxy: &Proxy, changes: &str) {
    let counts = ["requests", "pending", "retries", "held"];
    eventually(&format!("all is at rest after {changes}"), seconds(15), || {
        let clusters = page(proxy, "/clusters");
        let rests = |c: &Value| counts.iter().all(|name| c[*name] == 0);
        let page = page(proxy, "/functions");
        let known =
            page["functions"].as_array().unwrap().iter().flat_map(|f| f["instances"].as_array().unwrap());
        let (known, live) = (known.count() as u64, page["instances"].as_u64().unwrap());
        let processes = children(proxy.pid()) as u64;
        // The watchdog, where something was ever started.
        let all = known == live && (live..=live + 1).contains(&processes);
        (clusters.as_array().unwrap().iter().all(rests) && all).then_some(())
    });
}

fn children(of: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let parent = |stat: &str| stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok();
    stats.filter(|stat| parent(stat) == Some(of)).count()
}

/// No request of a function was lost with its instance.
#[track_caller]
fn nobody_was_cut_off(proxy: &Proxy, changes: &str) {
    let output = proxy.output();
    let lost = |line: &&str| {
        let of_function = line.contains("\"authority\":\"fa") || line.contains("\"authority\":\"fb");
        let cut = ["details\":\"function_exited\"", "connection_termination}", "{connection_failure}"];
        of_function && cut.iter().any(|part| line.contains(part))
    };
    assert_eq!(output.lines().find(lost), None, "after {changes}");
    assert!(!proxy.log().contains("defect"), "after {changes}");
}
