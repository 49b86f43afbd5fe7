//! Changing the configuration under load, and one team's typo.

use crate::support::proxy::Directory;
use crate::support::{Origin, Proxy, eventually, millis, seconds, yaml};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

fn answering(host: &str, body: &str) -> String {
    let http = format!("- directResponse: {{status: 200, body: {{string: '{body}'}}}}");
    yaml::virtual_service(&host.replace('.', "-").replace('*', "all"), host, &http)
}

fn body(proxy: &Proxy, host: &str) -> String {
    proxy.get("/").host(host).send().text()
}

#[test]
fn of_fifty_virtual_services_two_are_bad_and_forty_eight_change() {
    const MALFORMED: usize = 7;
    const DANGLING: usize = 23;
    let host = |number: usize| format!("team-{number:02}.test");
    let directory = Directory::new();
    let write = |number: usize, text: &str| directory.write(&format!("team-{number:02}.yaml"), text);
    (0..50).for_each(|number| write(number, &answering(&host(number), "one")));
    let proxy = Proxy::over(directory.path()).start();
    (0..50).for_each(|number| assert_eq!(body(&proxy, &host(number)), "one"));

    for number in 0..50 {
        let good = answering(&host(number), "two");
        match number {
            MALFORMED => write(number, &good.replace("directResponse", "directResponce")),
            DANGLING => write(
                number,
                &yaml::virtual_service(
                    "team-23-test",
                    &host(number),
                    "- route: [{destination: {host: nowhere.test}}]",
                ),
            ),
            _ => write(number, &good),
        }
    }
    let written = Instant::now();
    for number in (0..50).filter(|number| ![MALFORMED, DANGLING].contains(number)) {
        eventually("the change acts", seconds(5), || (body(&proxy, &host(number)) == "two").then_some(()));
    }
    assert!(written.elapsed() < seconds(2), "{:?}", written.elapsed());
    assert_eq!(body(&proxy, &host(MALFORMED)), "one", "its last good version stays");
    proxy.get("/dangling").host(&host(DANGLING)).send().expect(503);
    assert!(proxy.access_line(&["/dangling"]).contains(" 503 NC "), "{}", proxy.output());
    assert_eq!(proxy.metrics().sum("pilotlight_config_quarantined", &[]), 1.0);
    proxy.logs("directResponce");
    drop(proxy);

    let proxy = Proxy::over(directory.path()).start();
    for number in (0..50).filter(|number| ![MALFORMED, DANGLING].contains(number)) {
        assert_eq!(body(&proxy, &host(number)), "two", "after a restart");
    }
    proxy.get("/").host(&host(MALFORMED)).send().expect(404);
    proxy.get("/").host(&host(DANGLING)).send().expect(503);
}

#[test]
fn a_reload_under_load_drops_nothing() {
    let (old, new) = (Origin::h1().delay(millis(5)).reply("old"), Origin::h1().delay(millis(5)).reply("new"));
    let proxy = Proxy::to(&old).workers(2).start();
    let front = proxy.front();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let over = &over;
                scope.spawn(move || {
                    let mut connection = if number % 2 == 0 { front.connect() } else { front.connect_h2() };
                    let mut last = String::new();
                    while !over.load(Ordering::SeqCst) {
                        last = connection.send(front.get("/").host("shop")).expect(200).text();
                    }
                    last
                })
            })
            .collect();
        for origin in [&new, &old, &new] {
            proxy.write("config.yaml", &yaml::all_to("HTTP", &[origin.address()]));
            let hits = origin.hits();
            eventually("the change acts", seconds(5), || (origin.hits() > hits + 20).then_some(()));
        }
        over.store(true, Ordering::SeqCst);
        for client in clients {
            assert_eq!(client.join().expect("no request failed"), "new");
        }
    });
}

#[test]
fn a_half_written_file_deletes_nothing() {
    let proxy =
        Proxy::with("").file("a.yaml", &(answering("a.test", "one") + &answering("b.test", "one"))).start();
    let whole = answering("a.test", "two") + &answering("b.test", "two");
    // Cut inside a flow mapping: what there is of it is not YAML.
    let half = &whole[..whole.rfind("{status").unwrap() + 4];
    proxy.write("a.yaml", half);
    proxy.logs("a.yaml");
    for host in ["a.test", "b.test"] {
        assert_eq!(body(&proxy, host), "one", "{host}");
    }
    proxy.write("a.yaml", &whole);
    for host in ["a.test", "b.test"] {
        eventually("the whole file acts", seconds(5), || (body(&proxy, host) == "two").then_some(()));
    }
}

#[test]
fn files_come_and_go() {
    let proxy = Proxy::with("").file("a.yaml", &answering("a.test", "a")).start();
    proxy.write("b.yaml", &answering("b.test", "b"));
    eventually("a new file acts", seconds(5), || (body(&proxy, "b.test") == "b").then_some(()));
    std::fs::remove_file(proxy.directory().join("a.yaml")).unwrap();
    eventually("a removed file ends", seconds(5), || {
        (proxy.get("/").host("a.test").send().status == 404).then_some(())
    });
    assert_eq!(body(&proxy, "b.test"), "b");
}

#[test]
fn a_gateway_that_comes_or_goes_takes_over_the_address_it_wants() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = answering("a.test", "one");
    let proxy = Proxy::with(&text).http_port(free).own_ports().workers(2).start();
    let front = proxy.front();
    let gateway = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  servers:\n  \
         - {{port: {{number: {free}, name: http, protocol: HTTP}}, hosts: ['*']}}\n"
    );
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                front.get("/").host("a.test").send().expect(200);
            }
        });
        let reloads = || proxy.metrics().sum("pilotlight_config_reloads_total", &[]);
        for _ in 0..2 {
            let before = reloads();
            proxy.write("gateway.yaml", &gateway);
            eventually("the gateway serves", seconds(5), || (reloads() > before).then_some(()));
            std::fs::remove_file(proxy.directory().join("gateway.yaml")).unwrap();
            eventually("the default gateway serves", seconds(5), || (reloads() > before + 1.0).then_some(()));
        }
        proxy.logs(&format!("127.0.0.1:{free} is now gateway:{free} (Gateway default/edge)"));
        proxy.logs(&format!("127.0.0.1:{free} is now gateway (default gateway)"));
        over.store(true, Ordering::SeqCst);
        client.join().expect("no connection was refused");
    });
}

#[test]
fn a_request_under_way_ends_by_the_routes_it_began_with() {
    let origin = Origin::h1().delay(millis(1500)).reply("old");
    let proxy = Proxy::to(&origin).start();
    let front = proxy.front();
    let slow = std::thread::spawn(move || front.get("/").send());
    eventually("the origin is asked", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.write("config.yaml", &answering("*", "new"));
    eventually("the change acts", seconds(5), || (body(&proxy, "shop") == "new").then_some(()));
    assert_eq!(slow.join().unwrap().expect(200).text(), "old");
}

#[test]
fn strict_refuses_what_is_otherwise_quarantined() {
    let bad = answering("a.test", "a").replace("directResponse", "directResponce");
    let mut proxy = Proxy::with(&bad).args(["--strict"]).spawn();
    assert!(!proxy.exits_within(seconds(10)).success());
    assert!(proxy.log().contains("directResponse"), "it says what was meant: {}", proxy.log());
    Proxy::with(&bad).start().get("/").host("a.test").send().expect(404);
}

/// The page is made of the text that what is served was made from, whatever the files say by then.
#[test]
fn the_page_shows_what_is_served_and_not_what_is_written() {
    let (good, other) = (answering("a.test", "a"), answering("b.test", "b"));
    let bad = answering("a.test", "c").replace("directResponse", "directResponce");
    for strict in [false, true] {
        let proxy = Proxy::with(format!("{good}{other}"));
        let proxy = if strict { proxy.args(["--strict"]) } else { proxy }.start();
        let page = || proxy.admin().get("/config_dump").send().json();
        let objects = |page: &serde_json::Value, which: &str| {
            let named = page["last_reload"]["changes"]["objects"][which].as_array().unwrap().clone();
            named.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let first = page();
        let all = ["VirtualService default/a-test", "VirtualService default/b-test"];
        assert_eq!(objects(&first, "added"), all, "{first:#}");
        let served = first["configuration"].clone();
        proxy.write("config.yaml", &(bad.clone() + &other));
        let seen = |what: &str, fits: &dyn Fn(&serde_json::Value) -> bool| {
            eventually(what, seconds(10), || Some(page()).filter(|page| fits(page)))
        };
        let then = seen("the mistake is told", &|page| page["last_reload"]["errors"] != 0);
        assert_eq!((&then["configuration"], then["last_reload"]["refused"].is_string()), (&served, strict));
        proxy.write("config.yaml", &(good.clone() + &other));
        let then = seen("it is mended", &|page| page["last_reload"]["errors"] == 0);
        assert_eq!(
            (&then["configuration"], &then["last_reload"]["refused"]),
            (&served, &serde_json::Value::Null)
        );
        proxy.write("config.yaml", &good);
        let then = seen("one has gone", &|page| page["configuration"] != served);
        assert_eq!((objects(&then, "removed"), objects(&then, "added")), (vec![all[1].to_owned()], vec![]));
    }
}

#[test]
fn gateways_open_and_close_with_their_yaml() {
    let gateway = |port: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  servers:\n  \
                 - port: {{number: {port}, name: http, protocol: HTTP}}\n    hosts: ['*']\n---\n"
        )
    };
    let route = answering("a.test", "a");
    let proxy = Proxy::with(gateway(7101) + &route).args(["--port-map", "7102:0"]).start();
    proxy.gateway(7101).get("/").host("a.test").send().expect(200);
    assert!(proxy.find("gateway").is_none(), "the default gateway exists only without Gateways");
    proxy.write("config.yaml", &(gateway(7102) + &route));
    proxy.gateway(7102).get("/").host("a.test").send().expect(200);
    let old = proxy.gateway(7101);
    eventually("the old one closes", seconds(10), || old.get("/").try_send().is_err().then_some(()));
}

#[test]
fn a_changed_function_becomes_a_new_revision_and_its_old_requests_end() {
    let version =
        |name: &str| yaml::function_running("app", &format!("[pilotlight, echo, --name, {name}]"), "", "");
    let proxy = Proxy::with(version("before")).start();
    let front = proxy.front();
    let ask = move |path: &str| {
        front.get(path).host("app.default.localhost").timeout(seconds(20)).send().expect(200).json()
    };
    assert_eq!(ask("/")["name"], "before");
    let slow = std::thread::spawn(move || ask("/?delay=1500ms"));
    eventually("the slow one runs", seconds(5), || (ask("/")["concurrency"] == 2).then_some(()));
    proxy.write("config.yaml", &version("after"));
    eventually("the new one answers", seconds(10), || (ask("/")["name"] == "after").then_some(()));
    assert_eq!(slow.join().unwrap()["name"], "before");
}

#[test]
fn a_removed_function_is_404_and_its_instances_end() {
    let proxy = Proxy::with(yaml::function("gone", "", "")).start();
    let ask = || proxy.get("/").host("gone.default.localhost").send();
    let pid = u32::try_from(ask().expect(200).json()["pid"].as_u64().unwrap()).unwrap();
    proxy.write("config.yaml", &answering("other.test", "other"));
    eventually("the host is gone", seconds(5), || (ask().status == 404).then_some(()));
    eventually("the instance ends", seconds(10), || (!crate::support::process::alive(pid)).then_some(()));
}
