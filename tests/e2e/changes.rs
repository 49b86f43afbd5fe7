//! What changes while it matters: a configuration that is another one while requests wait, functions start or fail,
//! endpoints are left out, and connections are kept.

use crate::leaving::Chat;
use crate::support::process::alive;
use crate::support::secure::Dial;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Reply, Request, Response, Target, Town, eventually, seconds, yaml};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

fn running(command: &str, annotations: &str) -> String {
    yaml::function_running("f", &format!("[pilotlight, echo{command}]"), annotations, "")
}

fn ask(at: Target, path: &str) -> Request {
    at.get(path).host("f").timeout(seconds(30))
}

/// Asks in the background, and waits until the function holds so many.
fn held(proxy: &Proxy, count: u64) -> Vec<JoinHandle<Response>> {
    let mesh = proxy.mesh();
    let asked = (0..count).map(|_| std::thread::spawn(move || ask(mesh, "/").send())).collect();
    eventually("they are held", seconds(10), || {
        let functions = proxy.admin().get("/functions").send().json();
        (functions["functions"][0]["waiting"] == count).then_some(())
    });
    asked
}

fn pid_of(answer: &Response) -> u32 {
    u32::try_from(answer.json()["pid"].as_u64().unwrap()).unwrap()
}

#[test]
fn who_was_left_out_by_rules_that_are_gone_is_asked_again() {
    let origins = [Origin::h1().answer(|_| Reply::status(500)), Origin::h1().reply("good")];
    let policy = "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 300s, \
                  maxEjectionPercent: 100}";
    let addresses = [origins[0].address(), origins[1].address()];
    let all = yaml::all_to_with("HTTP", &addresses, "retries: {}");
    let proxy = Proxy::with(&all).file("rule.yaml", &yaml::destination_rule("upstream.test", policy)).start();
    eventually("the bad one is left out", seconds(10), || {
        proxy.get("/").send();
        let endpoints = proxy.admin().get("/clusters").send().json();
        endpoints.to_string().contains("\"healthy\":false").then_some(())
    });
    std::fs::remove_file(proxy.directory().join("rule.yaml")).unwrap();
    let before = origins[0].hits();
    eventually("it is asked again", seconds(10), || {
        proxy.get("/").send();
        (origins[0].hits() > before).then_some(())
    });
}

#[test]
fn who_waits_for_a_slow_start_is_served_by_what_a_reload_puts_in_its_place() {
    let proxy = Proxy::with(running(", --name, slow, --start-delay, 25s", "")).start();
    let began = Instant::now();
    let waiting = held(&proxy, 3);
    proxy.write("config.yaml", &running(", --name, swift", ""));
    for one in waiting {
        assert_eq!(one.join().unwrap().expect(200).json()["name"], "swift");
    }
    assert!(began.elapsed() < seconds(20), "nobody waited for the slow one");
    eventually("the slow one is gone", seconds(15), || {
        let functions = proxy.admin().get("/functions").send().json();
        (functions["functions"][0]["instances"].as_array().unwrap().len() == 1).then_some(())
    });
}

#[test]
fn a_probe_that_is_mended_while_it_fails_lets_in_who_waits_for_it() {
    let probed = |path: &str| {
        let probe =
            format!("readinessProbe: {{httpGet: {{path: '{path}'}}, periodSeconds: 1}}\n        command:");
        running("", "").replace("command:", &probe)
    };
    let proxy = Proxy::with(probed("/?status=500")).start();
    let waiting = held(&proxy, 2);
    proxy.write("config.yaml", &probed("/healthz"));
    let answers: Vec<_> = waiting.into_iter().map(|one| one.join().unwrap().expect(200)).collect();
    proxy.write("config.yaml", &probed("/?status=503"));
    eventually("it is put aside", seconds(20), || {
        proxy.log().contains("its readiness probe fails").then_some(())
    });
    proxy.write("config.yaml", &running("", ""));
    eventually("it is taken back", seconds(10), || {
        let answer = ask(proxy.mesh(), "/").timeout(seconds(2)).try_send().ok()?;
        (pid_of(&answer) == pid_of(&answers[0])).then_some(())
    });
}

#[test]
fn a_crash_loop_that_a_reload_mends_is_over_at_once() {
    let proxy = Proxy::with(running(", --no-such-flag", "")).start();
    let mesh = proxy.mesh();
    eventually("the circuit is open for long", seconds(30), || {
        ask(mesh, "/").send().expect(503);
        let page = proxy.admin().get("/functions").send().json();
        (page["functions"][0]["back_off_seconds"].as_f64() > Some(5.0)).then_some(())
    });
    proxy.write("config.yaml", &running("", ""));
    let mended = Instant::now();
    eventually("it answers", seconds(4), || (ask(mesh, "/").send().status == 200).then_some(()));
    assert!(mended.elapsed() < seconds(4));
}

#[test]
fn who_waits_for_a_revision_that_is_renamed_is_served_by_the_other() {
    let named = |name: &str, delay: &str| {
        let metadata = format!("template:\n    metadata: {{name: f-{name}}}\n");
        running(&format!(", --name, {name}, --start-delay, {delay}"), "").replace("template:\n", &metadata)
    };
    let proxy = Proxy::with(named("one", "25s")).start();
    let waiting = held(&proxy, 3);
    proxy.write("config.yaml", &named("two", "10ms"));
    for one in waiting {
        assert_eq!(one.join().unwrap().expect(200).json()["name"], "two");
    }
}

#[test]
fn a_function_that_goes_and_comes_under_load_loses_nobody_and_leaves_nothing() {
    let text = running("", "autoscaling.knative.dev/min-scale: '1'");
    let proxy = Proxy::with("").file("f.yaml", &text).workers(2).start();
    let (mesh, over, served) = (proxy.mesh(), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept = mesh.connect();
                while !over.load(Ordering::SeqCst) {
                    let answer = kept.send(ask(mesh, "/?delay=5ms"));
                    // Who waited for it when it went is told so; who comes later finds no such host.
                    let gone = answer.status == 503 && answer.text() == "the function was removed";
                    assert!(
                        gone || [200, 502].contains(&answer.status),
                        "{} {}",
                        answer.status,
                        answer.text()
                    );
                    served.fetch_add(usize::from(answer.status == 200), Ordering::SeqCst);
                }
            });
        }
        for _ in 0..4 {
            let before = served.load(Ordering::SeqCst);
            eventually("it serves", seconds(10), || {
                (served.load(Ordering::SeqCst) > before + 5).then_some(())
            });
            std::fs::remove_file(proxy.directory().join("f.yaml")).unwrap();
            eventually("it is gone", seconds(10), || (ask(mesh, "/").send().status == 502).then_some(()));
            proxy.write("f.yaml", &text);
            eventually("it is back", seconds(10), || (ask(mesh, "/").send().status == 200).then_some(()));
        }
        over.store(true, Ordering::SeqCst);
    });
    let counted = || {
        let functions = proxy.admin().get("/functions").send().json();
        (
            functions["instances"].as_u64().unwrap(),
            functions["functions"][0]["instances"].as_array().unwrap().len(),
        )
    };
    assert!(becomes_true(seconds(15), || counted() == (1, 1)), "{:?}", counted());
}

#[test]
fn a_websocket_outlives_its_function_and_the_instance_goes_with_it() {
    let chat = yaml::function("chat", "", "");
    let proxy = Proxy::with("").file("chat.yaml", &chat).start();
    let front = proxy.front();
    let pid = pid_of(&front.get("/").host("chat.default.localhost").send().expect(200));
    let mut socket = Chat::open(front);
    let status = || front.get("/").host("chat.default.localhost").timeout(seconds(20)).send().status;
    for _ in 0..2 {
        std::fs::remove_file(proxy.directory().join("chat.yaml")).unwrap();
        eventually("it is gone", seconds(10), || (status() == 404).then_some(()));
        assert!(socket.answers());
        proxy.write("chat.yaml", &chat);
        eventually("it is back", seconds(10), || (status() == 200).then_some(()));
        let answer = front.get("/").host("chat.default.localhost").send().expect(200);
        assert_eq!(pid_of(&answer), pid, "what drains is taken back");
        assert!(socket.answers());
    }
    std::fs::remove_file(proxy.directory().join("chat.yaml")).unwrap();
    eventually("it is gone", seconds(10), || (status() == 404).then_some(()));
    assert!(socket.answers() && alive(pid));
    socket.close();
    eventually("the instance has gone", seconds(15), || (!alive(pid)).then_some(()));
}

#[test]
fn kept_connections_of_a_port_that_is_closed_are_told_and_not_cut() {
    let gateway = |port: u16| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  servers:\n  \
             - {{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}\n---\n"
        )
    };
    let origin = Origin::h1().answer(|seen| match seen.uri.path() {
        "/slow" => Reply::text("slow").after(seconds(2)),
        _ => Reply::text("hello"),
    });
    let all = yaml::all_to("HTTP", &[origin.address()]);
    let proxy = Proxy::with(gateway(7101) + &all).args(["--port-map", "7102:0"]).start();
    let old = proxy.gateway(7101);
    let mut kept = old.connect();
    let mut other = old.connect_h2();
    kept.send(old.get("/")).expect(200);
    other.send(old.get("/")).expect(200);
    let slow = std::thread::spawn(move || old.get("/slow").send());
    eventually("it is under way", seconds(5), || (origin.hits() == 3).then_some(()));
    proxy.write("config.yaml", &(gateway(7102) + &all));
    proxy.gateway(7102).get("/").send().expect(200);
    assert_eq!(slow.join().unwrap().expect(200).text(), "slow");
    eventually("the port is closed", seconds(5), || old.get("/").try_send().is_err().then_some(()));
    for connection in [&mut kept, &mut other] {
        // Who asks once more is told that nobody serves here, or finds the connection closed before it is asked.
        let again = connection.try_send(old.get("/"));
        assert!(again.as_ref().map_or(true, |answer| answer.status == 404), "{again:?}");
        assert!(connection.try_send(old.get("/")).is_err(), "it was told to go");
    }
}

#[test]
fn an_empty_directory_serves_nothing_and_all_of_it_comes_back() {
    let origin = Origin::h1().reply("hello");
    let all = yaml::all_to("HTTP", &[origin.address()]) + &running("", "");
    let proxy = Proxy::with("").file("all.yaml", &all).start();
    let (front, mesh) = (proxy.front(), proxy.mesh());
    let mut kept = front.connect();
    for _ in 0..3 {
        eventually("all is served", seconds(10), || (kept.send(front.get("/")).status == 200).then_some(()));
        let pid = pid_of(&ask(mesh, "/").send().expect(200));
        std::fs::remove_file(proxy.directory().join("all.yaml")).unwrap();
        eventually("nothing is served", seconds(10), || {
            (kept.send(front.get("/")).status == 404).then_some(())
        });
        ask(mesh, "/").send().expect(502);
        eventually("the instance has gone", seconds(15), || (!alive(pid)).then_some(()));
        proxy.write("all.yaml", &all);
    }
}

#[test]
fn a_volume_that_is_swapped_under_load_turns_nobody_away() {
    let folder = crate::support::proxy::Directory::new();
    let home = folder.path();
    let swap = |version: usize| {
        let name = format!("..{version}");
        std::fs::create_dir(home.join(&name)).unwrap();
        let http = format!("- directResponse: {{status: 200, body: {{string: '{version}'}}}}");
        std::fs::write(home.join(&name).join("a.yaml"), yaml::virtual_service("a", "a.test", &http)).unwrap();
        std::fs::write(home.join(&name).join("f.yaml"), running(&format!(", --name, v{version}"), ""))
            .unwrap();
        symlink(&name, home.join("..tmp")).unwrap();
        std::fs::rename(home.join("..tmp"), home.join("..data")).unwrap();
        if version > 0 {
            std::fs::remove_dir_all(home.join(format!("..{}", version - 1))).unwrap();
        }
    };
    swap(0);
    ["a.yaml", "f.yaml"].iter().for_each(|name| symlink(format!("..data/{name}"), home.join(name)).unwrap());
    let proxy = Proxy::over(home).workers(2).start();
    let (front, mesh, over) = (proxy.front(), proxy.mesh(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                front.get("/").host("a.test").send().expect(200);
                ask(mesh, "/?delay=3ms").send().expect(200);
            }
        });
        for version in 1..6 {
            swap(version);
            let name = format!("v{version}");
            eventually("the other version acts", seconds(10), || {
                let of = (
                    front.get("/").host("a.test").send().text(),
                    ask(mesh, "/").send().json()["name"].clone(),
                );
                (of.0 == version.to_string() && of.1 == name.as_str()).then_some(())
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(!proxy.log().contains("cannot be read"), "{}", proxy.log());
}

#[test]
fn what_cannot_be_made_of_a_policy_is_said_once_and_not_at_each_reload() {
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\nspec: {jwtRules: \
                  [{issuer: i, jwks: '{\"keys\": []}'}]}\n---\n";
    let origin = Origin::h1().reply("hello");
    let all = tokens.to_owned() + &running("", "") + &yaml::function("g", "", "");
    let proxy = Proxy::with(&all).start();
    for reload in 0..3 {
        let entry = yaml::service_entry(&format!("host-{reload}.test"), "HTTP", &[origin.address()]);
        proxy.write("more.yaml", &entry);
        proxy.logs(&format!("+outbound|80||host-{reload}.test"));
    }
    let said = |word: &str| proxy.log().lines().filter(|line| line.contains(word)).count();
    assert_eq!(said("every token fails"), 1, "{}", proxy.log());
}

#[test]
fn a_kept_connection_is_told_why_its_port_would_refuse_it_now() {
    let town = Town::of(&[]);
    town.issue(&["a.test"], &[]);
    let [pair, key] = ["tls.crt", "tls.key"].map(|name| town.file(&format!("hosts/a.test/{name}")));
    let gateway = |protocol: &str, tls: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  servers:\n  \
             - {{port: {{number: 7443, name: p, protocol: {protocol}}}, hosts: ['*']{tls}}}\n---\n"
        )
    };
    let plain = gateway("HTTP", "");
    let secure =
        gateway("HTTPS", &format!(", tls: {{mode: SIMPLE, serverCertificate: {pair}, privateKey: {key}}}"));
    let route = yaml::virtual_service("a", "*", "- directResponse: {status: 200, body: {string: hello}}");
    let proxy = Proxy::with(plain.clone() + &route).start();
    let front = proxy.front();
    let mut kept = front.connect();
    kept.send(front.get("/one")).expect(200);
    assert!(proxy.access_line(&["/one"]).contains(" 200 - direct_response "), "{}", proxy.output());
    proxy.write("config.yaml", &(secure + &route));
    let dial = Dial::new(&[], None);
    let mut encrypted = eventually("TLS is spoken", seconds(10), || dial.to(front.address(), "a.test").ok());
    kept.send(front.get("/two")).expect(503);
    proxy.access_line(&["/two", "what it sent is not TLS"]);
    proxy.write("config.yaml", &(plain + &route));
    eventually("plaintext is spoken", seconds(10), || {
        front.get("/").try_send().ok().filter(|a| a.status == 200)
    });
    encrypted.write_all(b"GET /three HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    proxy.access_line(&["/three", " 503 - ", "what it sent is TLS"]);
}
