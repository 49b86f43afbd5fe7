//! Clients that leave while they are held, and those that only look as if they did.

use crate::support::raw::RawClient;
use crate::support::{Proxy, Target, eventually, millis, seconds, yaml};
use std::time::{Duration, Instant};

/// A function that takes so long to listen.
fn slow(name: &str, after: &str, annotations: &str) -> String {
    let command = format!("[pilotlight, echo, --start-delay, {after}]");
    yaml::function_running(name, &command, annotations, "")
}

/// How many wait for the only function there is.
fn waiting(admin: &mut crate::support::client::Connection, target: Target) -> u64 {
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
