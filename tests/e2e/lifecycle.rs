//! Starting, stopping, dying.

use crate::support::process::{Process, alive, processes_with};
use crate::support::proxy::PILOTLIGHT;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, eventually, millis, seconds, yaml};
use rustix::process::Signal;
use std::process::Command;

#[test]
fn sigterm_ends_an_idle_proxy_at_once_and_well() {
    let origin = Origin::h1().reply("hello");
    let mut proxy = Proxy::to(&origin).start();
    proxy.get("/").send().expect(200);
    proxy.signal(Signal::TERM);
    let status = proxy.exits_within(seconds(10));
    assert!(status.success(), "{status}");
}

#[test]
fn sigterm_lets_what_is_in_flight_end_and_says_that_it_leaves() {
    let origin = Origin::h1().delay(millis(1000)).reply("finished");
    let mut proxy = Proxy::to(&origin).start();
    let front = proxy.front();
    let admin = proxy.admin();
    let in_flight = std::thread::spawn(move || front.get("/").send());
    eventually("the origin is asked", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.signal(Signal::TERM);
    let unready = || admin.get("/ready").try_send().ok().is_none_or(|answer| answer.status == 503);
    assert!(becomes_true(millis(800), unready), "readiness fails first");
    let response = in_flight.join().unwrap().expect(200);
    assert_eq!(response.text(), "finished");
    assert!(proxy.exits_within(seconds(10)).success());
}

#[test]
fn a_kept_connection_is_told_to_close_while_draining() {
    let origin = Origin::h1().answer(|seen| {
        let wait = if seen.uri.path() == "/slow" { millis(1500) } else { millis(0) };
        crate::support::Reply::text("hello").after(wait)
    });
    let mut proxy = Proxy::to(&origin).args(["--drain-delay", "1s"]).workers(1).start();
    let front = proxy.front();
    let mut kept = front.connect();
    kept.send(front.get("/")).expect(200);
    let slow = std::thread::spawn(move || front.get("/slow").send());
    eventually("the slow one is under way", seconds(5), || (origin.hits() == 2).then_some(()));
    proxy.signal(Signal::TERM);
    // While the drain delay runs, balancers have not yet noticed: new connections are served as ever.
    front.get("/").send().expect(200);
    let slow = slow.join().unwrap().expect(200);
    assert_eq!(slow.header("connection"), "close");
    assert!(proxy.exits_within(seconds(10)).success());
}

#[test]
fn streams_in_flight_end_well_while_an_h2_connection_is_told_to_go() {
    let origin = Origin::h1().delay(millis(1000)).reply("finished");
    let mut proxy = Proxy::to(&origin).start();
    let front = proxy.front();
    let in_flight = std::thread::spawn(move || front.get("/").h2().send());
    eventually("the origin is asked", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.signal(Signal::TERM);
    assert_eq!(in_flight.join().unwrap().expect(200).text(), "finished");
    assert!(proxy.exits_within(seconds(10)).success());
}

#[test]
fn a_killed_proxy_leaves_ports_that_the_next_one_gets() {
    let origin = Origin::h1().reply("hello");
    let mut first = Proxy::to(&origin).start();
    first.get("/").send().expect(200);
    let port = first.front().address().port();
    first.signal(Signal::KILL);
    first.exits_within(seconds(5));
    let second = Proxy::to(&origin).http_port(port).start();
    assert_eq!(second.front().address().port(), port);
    second.get("/").send().expect(200);
}

#[test]
fn sigterm_lets_a_slow_reader_have_the_last_byte() {
    let origin = Origin::h1().reply(&"x".repeat(8 << 20));
    let mut proxy = Proxy::to(&origin).workers(1).start();
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: shop\n\n");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    proxy.signal(Signal::TERM);
    for _ in 0..8 << 20 >> 15 {
        std::thread::sleep(millis(10));
        client.read_exactly(1 << 15);
    }
    assert!(proxy.exits_within(seconds(10)).success());
}

#[test]
fn an_http2_client_that_comes_while_the_proxy_closes_is_told_to_go_too() {
    let origin = Origin::h1().answer(|seen| {
        let wait = if seen.uri.path() == "/slow" { seconds(4) } else { millis(0) };
        crate::support::Reply::text("hello").after(wait)
    });
    let mut proxy = Proxy::to(&origin).args(["--drain-timeout", "8s"]).workers(1).start();
    let front = proxy.front();
    let slow = std::thread::spawn(move || front.get("/slow").send());
    eventually("the slow one is under way", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.signal(Signal::TERM);
    proxy.logs("closing: ");
    let mut late = front.connect_h2();
    late.send(front.get("/")).expect(200);
    while late.try_send(front.get("/")).is_ok() {
        std::thread::sleep(millis(20));
    }
    assert!(!slow.is_finished(), "it could go on until the end");
    slow.join().unwrap().expect(200);
    assert!(proxy.exits_within(seconds(10)).success());
}

#[test]
fn a_second_sigterm_hurries() {
    let origin = Origin::h1().delay(seconds(60)).reply("never");
    let mut proxy = Proxy::to(&origin).start();
    let front = proxy.front();
    let stuck = std::thread::spawn(move || front.get("/").timeout(seconds(30)).try_send());
    eventually("the origin is asked", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.signal(Signal::TERM);
    std::thread::sleep(millis(300));
    proxy.signal(Signal::TERM);
    proxy.exits_within(seconds(10));
    drop(stuck.join());
}

#[test]
fn the_drain_timeout_is_kept() {
    let origin = Origin::h1().delay(seconds(60)).reply("never");
    let mut proxy = Proxy::to(&origin).args(["--drain-timeout", "1s"]).start();
    let front = proxy.front();
    let stuck = std::thread::spawn(move || front.get("/").timeout(seconds(30)).try_send());
    eventually("the origin is asked", seconds(5), || (origin.hits() == 1).then_some(()));
    proxy.signal(Signal::TERM);
    proxy.exits_within(seconds(5));
    drop(stuck.join());
}

#[test]
fn sigterm_while_one_function_calls_another_at_zero_still_answers() {
    let back = yaml::function_running("back", "[pilotlight, echo, --start-delay, 500ms]", "", "");
    let mut proxy = Proxy::with(yaml::function("front", "", "") + &back).start();
    let front = proxy.front();
    let ask = move |path: &str| {
        front.get(path).host("front.default.localhost").timeout(seconds(20)).send().expect(200)
    };
    ask("/");
    let calling = std::thread::spawn(move || ask("/?delay=700ms&call=http://back/"));
    eventually("the call is under way", seconds(5), || (ask("/").json()["concurrency"] == 2).then_some(()));
    proxy.signal(Signal::TERM);
    let answer = calling.join().unwrap().json();
    assert_eq!(answer["calls"][0]["status"], 200, "{answer}");
    assert!(proxy.exits_within(seconds(20)).success());
}

#[test]
fn functions_end_with_the_proxy_that_is_told_to_stop() {
    let mut proxy = Proxy::with(yaml::function("hello", "", "")).start();
    let answer = proxy.get("/").host("hello.default.localhost").send().expect(200).json();
    let pid = u32::try_from(answer["pid"].as_u64().unwrap()).unwrap();
    proxy.signal(Signal::TERM);
    assert!(proxy.exits_within(seconds(15)).success());
    assert!(!alive(pid), "the function outlived the proxy");
}

#[test]
fn nothing_is_left_a_second_after_the_proxy_was_killed() {
    let mark = format!("1000.{}", std::process::id());
    let command = format!("pilotlight.dev/local-command: \"sh -c 'sleep {mark} & wait'\"");
    let mut proxy = Proxy::with(yaml::function_running("stubborn", "[/app]", &command, "")).start();
    let front = proxy.front();
    let held = std::thread::spawn(move || front.get("/").host("stubborn.default.localhost").try_send());
    let sleeping = format!("sleep {mark}");
    eventually("the grandchild runs", seconds(10), || (!processes_with(&sleeping).is_empty()).then_some(()));
    proxy.signal(Signal::KILL);
    proxy.exits_within(seconds(5));
    let gone = becomes_true(seconds(1), || processes_with(&sleeping).is_empty());
    assert!(gone, "still there: {:?}", processes_with(&sleeping));
    assert!(held.join().unwrap().is_err());
}

#[test]
fn a_port_that_is_taken_is_named_with_who_asked_for_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut proxy = Proxy::with(yaml::function("hello", "", "")).http_port(address.port()).spawn();
    let status = proxy.exits_within(seconds(10));
    assert!(!status.success());
    let log = proxy.log();
    assert!(log.contains(&address.to_string()) && log.contains("default gateway"), "{log}");
}

#[test]
fn a_second_pilotlight_on_the_same_port_is_refused_too() {
    let first = Proxy::with(yaml::function("hello", "", "")).start();
    let (gateway, admin) = (first.front().address(), first.admin().address().to_string());
    let mut second = Proxy::with(yaml::function("hello", "", "")).http_port(gateway.port()).spawn();
    assert!(!second.exits_within(seconds(10)).success());
    assert!(second.log().contains(&gateway.to_string()), "{}", second.log());
    let mut third = Proxy::with(yaml::function("hello", "", "")).admin_at(&admin).spawn();
    assert!(!third.exits_within(seconds(10)).success());
    assert!(third.log().contains(&admin) && third.log().contains("--admin"), "{}", third.log());
}

#[test]
fn a_directory_that_is_not_there_is_a_clear_error() {
    let mut command = Command::new(PILOTLIGHT);
    command.args([
        "run",
        "/no/such/place",
        "--admin",
        "127.0.0.1:0",
        "--mesh",
        "127.0.0.1:0",
        "--http-port",
        "0",
    ]);
    let mut process = Process::start(command);
    assert!(!process.exits_within(seconds(10)).success());
    assert!(process.stderr_text().contains("/no/such/place"), "{}", process.stderr_text());
}

#[test]
fn an_ordinary_user_gets_80_as_8080_or_is_told() {
    let text = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: apps}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*']
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, serverCertificate: /etc/certs/tls.crt, privateKey: /etc/certs/tls.key}
    hosts: ['*']
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: greeter}
spec:
  template:
    spec:
      containers: [{image: registry.example.com/greeter:1.0}]
";
    // An address of this host's own that other tests leave alone, because the ports are fixed here.
    let setup = Proxy::with(text).own_ports().args(["--stand-in", "--bind", "127.0.0.80"]);
    let copy = crate::support::proxy::Directory::new();
    let binary = copy.path().join("pilotlight");
    std::fs::copy(PILOTLIGHT, &binary).expect("a copy that any user may run");
    let binary = binary.to_str().unwrap();
    let drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", binary];
    let setup =
        if rustix::process::geteuid().is_root() { setup.program(&drop) } else { setup.program(&[binary]) };
    let proxy = setup.start();
    let answer = proxy.get("/").host("greeter.default.localhost").send().expect(200).json();
    assert_eq!(answer["name"], "greeter");
    let front = proxy.front().address();
    assert!(front.port() == 80 || front.port() == 8080, "{front}");
    if front.port() == 8080 {
        proxy.logs("8080");
    }
}
