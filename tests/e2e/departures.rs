//! Clients that leave while they are held, and those that only look as if they did.

use crate::support::client::Connection;
use crate::support::frames::{
    self, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, block, frame,
};
use crate::support::process::Process;
use crate::support::proxy::{Directory, PILOTLIGHT};
use crate::support::raw::{RawClient, RawOrigin};
use crate::support::tools::needs;
use crate::support::{Origin, Proxy, Reply, Target, eventually, millis, seconds, yaml};
use rustix::process::Signal;
use std::net::Shutdown;
use std::process::Command;
use std::time::{Duration, Instant};

/// A function that takes so long to listen.
fn slow(name: &str, after: &str, annotations: &str) -> String {
    let command = format!("[pilotlight, echo, --start-delay, {after}]");
    yaml::function_running(name, &command, annotations, "")
}

/// How many wait for the only function there is.
fn waiting(admin: &mut Connection, target: Target) -> u64 {
    let functions = admin.send(target.get("/functions")).json();
    functions["functions"][0]["waiting"].as_u64().unwrap()
}

/// How a client leaves, what it had sent, and what it does.
type Way = (&'static str, &'static str, fn(RawClient));

#[test]
fn a_client_that_leaves_lowers_demand_within_milliseconds_whatever_it_was_about_to_send() {
    let proxy = Proxy::with(slow("asleep", "60s", "")).workers(2).start();
    let (front, target) = (proxy.front(), proxy.admin());
    let mut admin = target.connect();
    let get = "GET / HTTP/1.1\nhost: asleep.default.localhost\n\n";
    let post = "POST / HTTP/1.1\nhost: asleep.default.localhost\ncontent-length: 100000\n\nsome of it";
    let ways: [Way; 4] = [
        ("FIN", get, drop),
        ("reset", get, RawClient::reset),
        ("FIN behind a body", post, drop),
        ("reset behind a body", post, RawClient::reset),
    ];
    for (how, request, leave) in ways {
        let mut took: Vec<Duration> = (0..20)
            .map(|_| {
                let mut client = front.raw();
                client.send(request);
                eventually("it waits", seconds(10), || (waiting(&mut admin, target) == 1).then_some(()));
                let left = Instant::now();
                leave(client);
                while waiting(&mut admin, target) > 0 {
                    assert!(left.elapsed() < seconds(10), "{how}: it is still waited for");
                }
                left.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!("{how}: demand is lower after {:?} (half), {:?} (all)", took[10], took[19]);
        // A few milliseconds where nothing else runs; far from any timer everywhere.
        assert!(took[10] < millis(100), "{how}: {took:?}");
    }
}

#[test]
fn who_has_only_finished_sending_is_answered_where_that_is_kept_and_has_left_elsewhere() {
    let keep = "pilotlight.dev/half-close: keep";
    let proxy = Proxy::with(slow("kept", "1s", keep) + &slow("plain", "1s", "")).workers(1).start();
    let send = |text: &str| {
        let mut client = proxy.front().raw();
        client.send(text).finish();
        client
    };
    let post = "\ncontent-length: 5\n\nhello";
    let mut kept = send("GET /kept HTTP/1.1\nhost: kept.default.localhost\n\n");
    let mut whole = send(&format!("POST /whole HTTP/1.1\nhost: kept.default.localhost{post}"));
    let mut plain = send("GET /plain HTTP/1.1\nhost: plain.default.localhost\n\n");
    let mut unread = send(&format!("POST /unread HTTP/1.1\nhost: plain.default.localhost{post}"));
    let mut gone = proxy.front().raw();
    gone.send("GET /reset HTTP/1.1\nhost: kept.default.localhost\n\n");
    assert!(gone.is_silent_for(millis(100)));
    gone.reset();
    for path in ["/plain", "/unread", "/reset"] {
        assert!(proxy.access_line(&[path]).contains(" 0 DC "), "{}", proxy.output());
    }
    for client in [&mut kept, &mut whole] {
        let answer = client.read_to_end();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(!plain.read_to_end().contains("200 OK") && !unread.read_to_end().contains("200 OK"));
    assert!(proxy.access_line(&["/whole"]).contains(" 200 "), "{}", proxy.output());
}

#[test]
fn a_body_that_breaks_off_is_cut_even_where_half_a_connection_is_kept() {
    let proxy = Proxy::with(slow("kept", "0s", "pilotlight.dev/half-close: keep")).workers(1).start();
    let front = proxy.front();
    front.get("/").host("kept.default.localhost").timeout(seconds(20)).send().expect(200);
    let mut client = front.raw();
    client.send("POST /cut HTTP/1.1\nhost: kept.default.localhost\ncontent-length: 10\n\nhello").finish();
    let line = proxy.access_line(&["/cut"]);
    assert!(!line.contains(" 200 "), "{line}");
    client.read_to_end();
    // A kept connection serves on, and its next end is an end.
    let mut connection = front.connect();
    for _ in 0..3 {
        connection.send(front.get("/again").host("kept.default.localhost")).expect(200);
    }
}

/// A function that does not listen before `open` lies in the directory.
fn gated(directory: &Directory, name: &str) -> String {
    let gate = directory.path().join("open");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; exec {PILOTLIGHT} echo", gate.display());
    let command = format!("pilotlight.dev/local-command: \"sh -c '{script}'\"");
    yaml::function_running(name, "[/app]", &command, "containerConcurrency: 1")
}

/// Waits until nobody waits at `target`, and gives how long that took since `left`.
#[track_caller]
fn gone(how: &str, left: Instant, admin: &mut Connection, target: Target) -> Duration {
    while waiting(admin, target) > 0 {
        assert!(left.elapsed() < seconds(10), "{how}: it is still waited for");
    }
    left.elapsed()
}

/// Nobody of those who left is sent when at last there is an instance; whoever stays is.
#[track_caller]
fn nobody_else_is_sent(directory: &Directory, proxy: &Proxy, name: &str) {
    eventually("the gauge is lower, too", seconds(5), || {
        (proxy.metrics().sum("pilotlight_held_requests", &[]) == 0.0).then_some(())
    });
    directory.write("open", "");
    let request = proxy.get("/").host(&format!("{name}.default.localhost")).timeout(seconds(30));
    let answer = request.send().expect(200).json();
    assert_eq!((&answer["served"], &answer["peak"]), (&1.into(), &1.into()), "{answer}");
}

#[test]
fn a_stream_that_is_reset_while_it_is_held_leaves_within_milliseconds_and_its_connection_goes_on() {
    let directory = Directory::new();
    let proxy = Proxy::with(gated(&directory, "asleep")).workers(2).start();
    let (front, target) = (proxy.front(), proxy.admin());
    let mut admin = target.connect();
    let head = |method, kind| {
        let authority = "asleep.default.localhost";
        let pseudo =
            [(":method", method), (":scheme", "http"), (":authority", authority), (":path", "/left")];
        block(&[&pseudo[..], &[("content-type", kind), ("te", "trailers")]].concat())
    };
    let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "text/plain"));
    let post = frame(HEADERS, END_HEADERS, 1, &head("POST", "text/plain"));
    let begun =
        [frame(HEADERS, END_HEADERS, 1, &head("POST", "text/plain")), frame(DATA, 0, 1, &[b'x'; 9000])];
    let grpc = [
        frame(HEADERS, END_HEADERS, 1, &head("POST", "application/grpc")),
        frame(DATA, END_STREAM, 1, b"\0\0\0\0\x02hi"),
    ];
    let ways =
        [("GET", get), ("no data yet", post), ("half a body", begun.concat()), ("gRPC", grpc.concat())];
    for (how, request) in ways {
        let mut frames = Frames::to(front.address(), &[]);
        let mut took: Vec<Duration> = Vec::new();
        for stream in (1..40).step_by(2) {
            // The same frames on the next stream.
            let mut request = request.clone();
            let mut at = 0;
            while at < request.len() {
                request[at + 8] = stream;
                at += 9 + usize::from(u16::from_be_bytes([request[at + 1], request[at + 2]]));
            }
            assert!(frames.send(&request));
            eventually("it waits", seconds(10), || (waiting(&mut admin, target) == 1).then_some(()));
            let left = Instant::now();
            assert!(frames.send(&frame(RST_STREAM, 0, stream.into(), &8_u32.to_be_bytes())));
            took.push(gone(how, left, &mut admin, target));
        }
        took.sort_unstable();
        println!("{how}: demand is lower after {:?} (half), {:?} (all)", took[10], took[19]);
        assert!(took[10] < millis(100), "{how}: {took:?}");
    }
    assert!(proxy.access_line(&["GET /left"]).contains(" 0 DC "), "{}", proxy.output());
    nobody_else_is_sent(&directory, &proxy, "asleep");
}

const GRPC_CLIENT: &str = r#"
import grpc, os, sys, time
options = [("grpc.default_authority", "greeter.default.localhost"), ("grpc.enable_http_proxy", 0)]
channel = grpc.insecure_channel(sys.argv[1], options=options)

def wait_for(name):
    while not os.path.exists(os.path.join(sys.argv[2], name)):
        time.sleep(0.005)

for number in range(10):
    call = channel.unary_unary("/greeter.Greeter/Hello").future(b"hi", timeout=60)
    wait_for("cancel-%d" % number)
    call.cancel()
    print("cancelled", flush=True)
    wait_for("next-%d" % number)
"#;

#[test]
fn a_grpc_call_that_is_cancelled_while_it_is_held_leaves_within_milliseconds() {
    needs!("python3", "grpcio");
    let directory = Directory::new();
    directory.write("client.py", GRPC_CLIENT);
    let text = gated(&directory, "greeter").trim_end_matches("---\n").to_owned()
        + "        ports: [{name: h2c, containerPort: 8080}]\n---\n";
    let proxy = Proxy::with(text).workers(1).start();
    let target = proxy.admin();
    let mut admin = target.connect();
    let mut command = Command::new("python3");
    command.arg(directory.path().join("client.py")).arg(proxy.front().address().to_string());
    let mut client = Process::start({
        command.arg(directory.path());
        command
    });
    let mut took: Vec<Duration> = Vec::new();
    for number in 0..10 {
        eventually("it waits", seconds(20), || (waiting(&mut admin, target) == 1).then_some(()));
        directory.write(&format!("cancel-{number}"), "");
        eventually("it is cancelled", seconds(20), || (client.stdout.lock().len() > number).then_some(()));
        took.push(gone("cancelled", Instant::now(), &mut admin, target));
        directory.write(&format!("next-{number}"), "");
    }
    assert!(client.exits_within(seconds(20)).success());
    took.sort_unstable();
    println!("cancelled calls have left after {:?} (half), {:?} (all)", took[5], took[9]);
    assert!(took[5] < millis(100), "{took:?}");
    let line = proxy.access_line(&["/greeter.Greeter/Hello"]);
    assert!(line.contains(" 0 DC "), "{line}");
    nobody_else_is_sent(&directory, &proxy, "greeter");
}

#[test]
fn a_destination_is_told_with_a_reset_that_nobody_waits_and_without_one_that_a_connection_is_over() {
    let (told, tells) = std::sync::mpsc::channel();
    let origin = RawOrigin::script(move |mut client, number| {
        client.read_head();
        if number == 1 {
            client.send("HTTP/1.1 200 OK\ncontent-length: 0\nconnection: close\n\n");
        }
        told.send(None).unwrap();
        told.send(Some(client.is_reset())).unwrap();
    });
    let text = yaml::service_entry("origin.test", "HTTP", &[origin.address()]);
    let rules = "- route: [{destination: {host: origin.test}}]";
    let proxy = Proxy::with(text + &yaml::virtual_service("all", "*", rules)).start();
    let next = || tells.recv_timeout(seconds(10)).expect("the origin has got as far");
    proxy.get("/").send().expect(200);
    assert_eq!((next(), next()), (None, Some(false)), "after an answer");
    let mut client = proxy.front().raw();
    client.send("GET / HTTP/1.1\nhost: a\n\n");
    assert_eq!(next(), None);
    drop(client);
    assert_eq!(next(), Some(true), "when the client has gone");
}

#[test]
fn what_an_http2_client_asked_for_before_it_went_is_not_begun_when_that_is_known() {
    let origin = Origin::h1().answer(|_| Reply::text("here"));
    let text = yaml::service_entry("origin.test", "HTTP", &[origin.address()]);
    let rules = "- route: [{destination: {host: origin.test}}]";
    let proxy = Proxy::with(text + &yaml::virtual_service("all", "*", rules)).workers(1).start();
    let ask = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &frames::get("/"));
    // All of it is there, and the end of it, before the proxy gets to look.
    proxy.signal(Signal::STOP);
    let mut client = Frames::to(proxy.front().address(), &[]);
    assert!(client.send(&(1..400).step_by(2).flat_map(ask).collect::<Vec<_>>()));
    client.stream.shutdown(Shutdown::Write).unwrap();
    proxy.signal(Signal::CONT);
    while client.read().is_some() {}
    proxy.get("/").send().expect(200);
    assert!(origin.hits() < 20, "{} of 200 were begun", origin.hits());
}
