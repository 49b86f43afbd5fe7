//! Who is meant is decided before anybody waits: a canary wakes for its own traffic, and for nothing else.

use crate::support::{Proxy, Request, Target, millis, seconds, together, yaml};

/// Two revisions of one function, which nothing has woken yet; `traffic` is the split between them.
fn pair(traffic: &str) -> String {
    let document = |revision: &str, traffic: &str| {
        let command = "[pilotlight, echo, --start-delay, 300ms]";
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: pair}}\nspec:\n  template:\n    \
             metadata: {{name: pair-{revision}, labels: {{version: {revision}}}}}\n    spec:\n      \
             containerConcurrency: 2\n      containers: [{{image: example.com/pair:1, command: {command}}}]\n\
             {traffic}---\n"
        )
    };
    document("old", "") + &document("new", &format!("  traffic:\n{traffic}"))
}

const ALL_OLD: &str =
    "  - {revisionName: pair-old, percent: 100}\n  - {revisionName: pair-new, percent: 0}\n";

/// A header chooses the new one, which a subset names.
fn by_header() -> String {
    let subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: pair}\nspec:\n  \
                   host: pair\n  subsets:\n  - {name: new, labels: {version: new}}\n---\n";
    let http = "- match: [{headers: {x-canary: {exact: 'yes'}}}]\n  route: [{destination: {host: pair, subset: \
                new}}]\n- route: [{destination: {host: pair}}]";
    pair(ALL_OLD) + subsets + &yaml::virtual_service("pair", "pair.test", http)
}

/// How often each of the two was started, and how many of each are there.
fn starts(proxy: &Proxy) -> [(u64, usize); 2] {
    let functions = proxy.admin().get("/functions").send().json();
    ["old", "new"].map(|revision| {
        let key = format!("default/pair-{revision}");
        let all = functions["functions"].as_array().unwrap();
        let one = all.iter().find(|one| one["revision"] == *key).unwrap_or_else(|| panic!("{functions}"));
        (one["starts"].as_u64().unwrap(), one["instances"].as_array().unwrap().len())
    })
}

fn ask(front: Target, path: &str) -> Request {
    front.get(path).host("pair.test").timeout(seconds(60))
}

#[test]
fn a_header_canary_wakes_only_its_own_revision_and_each_scales_apart() {
    let proxy = Proxy::with(by_header()).workers(2).start();
    let front = proxy.front();
    let served = ask(front, "/").header("x-canary", "yes").send().expect(200).json();
    assert_eq!(served["revision"], "pair-new");
    assert_eq!(starts(&proxy), [(0, 0), (1, 1)], "the other one sleeps on");
    let answers = together(8, |_| {
        let answer = ask(front, "/?delay=2s").header("x-canary", "yes").send().expect(200).json();
        answer["revision"].as_str().unwrap().to_owned()
    });
    assert!(answers.iter().all(|revision| revision == "pair-new"), "{answers:?}");
    assert_eq!(starts(&proxy), [(0, 0), (4, 4)], "two requests each, and nothing of it is the other's");
    assert_eq!(ask(front, "/").send().expect(200).json()["revision"], "pair-old");
    assert_eq!(starts(&proxy), [(1, 1), (4, 4)]);
}

#[test]
fn those_who_wait_for_one_revision_do_not_wait_for_the_other() {
    // The old one never listens.
    let text = by_header().replacen("--start-delay, 300ms", "--start-delay, 600s", 1);
    let proxy = Proxy::with(text).workers(2).start();
    let front = proxy.front();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| ask(front, "/held").timeout(seconds(6)).try_send());
        let answer = ask(front, "/").header("x-canary", "yes").send().expect(200);
        assert!(answer.took < seconds(5), "{:?}", answer.took);
        assert!(held.join().unwrap().is_err(), "it still waits for its own");
    });
    assert_eq!(starts(&proxy), [(1, 1), (1, 1)]);
}

#[test]
fn a_split_decides_first_and_wakes_what_it_has_chosen() {
    let host = "pair.default.localhost";
    for (old, new, want) in [(0, 100, [(0, 0), (1, 1)]), (100, 0, [(1, 1), (0, 0)])] {
        let traffic = format!(
            "  - {{revisionName: pair-old, percent: {old}}}\n  - {{revisionName: pair-new, percent: {new}}}\n"
        );
        let proxy = Proxy::with(pair(&traffic)).start();
        (0..10).for_each(|_| drop(proxy.get("/").host(host).timeout(seconds(60)).send().expect(200)));
        assert_eq!(starts(&proxy), want, "{old}/{new}");
    }
    let half = "  - {revisionName: pair-old, percent: 50}\n  - {revisionName: pair-new, percent: 50}\n";
    let proxy = Proxy::with(pair(half)).start();
    let first = proxy.get("/").host(host).timeout(seconds(60)).send().expect(200).json();
    let want = if first["revision"] == "pair-old" { [(1, 1), (0, 0)] } else { [(0, 0), (1, 1)] };
    std::thread::sleep(millis(200));
    assert_eq!(starts(&proxy), want, "one request wakes one: {first}");
}
