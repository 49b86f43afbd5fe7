//! Large bodies that wait: they stay where they are, and arrive whole.

use crate::clients::resident;
use crate::support::crowd::run;
use crate::support::{Proxy, Request, millis, seconds, together, yaml};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// `PILOTLIGHT_UPLOADS=100x100`: a hundred of a hundred million bytes each.
fn uploads() -> (usize, usize) {
    let given = std::env::var("PILOTLIGHT_UPLOADS").ok();
    let pair = given.as_deref().and_then(|text| {
        let (count, megabytes) = text.split_once('x')?;
        Some((count.parse().ok()?, megabytes.parse::<usize>().ok()? * 1_000_000))
    });
    pair.unwrap_or((20, 5_000_000))
}

/// More than this beside what the proxy needs anyway is not kept of bodies that wait, in KiB.
const CAP: usize = 96 << 10;

#[track_caller]
fn held(h2: bool) {
    let (count, size) = uploads();
    let text = yaml::function_running("upload", "[pilotlight, echo, --start-delay, 3s]", "", "");
    let proxy = Proxy::with(text).workers(2).start();
    let front = proxy.front();
    let body = Bytes::from((0..size).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>());
    let want = sha1_smol::Sha1::from(&body).digest().to_string();
    let (before, most, over) = (resident(proxy.pid()), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(resident(proxy.pid()), Ordering::SeqCst);
                std::thread::sleep(millis(20));
            }
        });
        let answers = together(count, |_| {
            let request: Request = front.post("/", Vec::new()).host("upload.default.localhost");
            let request = request.shared_body(body.clone()).timeout(seconds(900));
            if h2 { request.h2() } else { request }.send().expect(200).json()
        });
        over.store(true, Ordering::SeqCst);
        for answer in answers {
            assert_eq!((&answer["body_bytes"], &answer["body_sha1"]), (&size.into(), &want.as_str().into()));
        }
    });
    let most = most.into_inner();
    println!(
        "{count} of {size} bytes over HTTP/{}: {before} KiB before, {most} KiB at most",
        1 + u8::from(h2)
    );
    assert!(most < before + CAP, "{before} KiB before, {most} KiB at most");
}

#[test]
fn uploads_that_wait_stay_in_their_sockets_and_arrive_whole() {
    held(false);
}

#[test]
fn uploads_over_http2_are_stopped_by_their_windows_and_arrive_whole() {
    held(true);
}

#[test]
fn neighbours_of_a_held_stream_that_sends_all_the_time_notice_nothing() {
    let asleep = yaml::function_running("asleep", "[pilotlight, echo, --start-delay, 4s]", "", "");
    let proxy = Proxy::with(yaml::function("awake", "", "") + &asleep).workers(1).start();
    let front = proxy.front();
    front.get("/").host("awake.default.localhost").send().expect(200);
    let request = |host: &str, path: &str| {
        http::Request::post(format!("http://{host}.default.localhost{path}")).body(()).unwrap()
    };
    run(async {
        let stream = TcpStream::connect(front.address()).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut held = request("asleep", "/chat");
        held.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (answer, mut body) = client.send_request(held, false).unwrap();
        // As much as ever it may, until it is answered.
        let message = Bytes::from_static(&[0, 0, 0, 0, 3, b'a', b'b', b'c']).repeat(4096);
        let chat = tokio::spawn(async move {
            for _ in 0..200 {
                let mut left = Bytes::from(message.clone());
                while !left.is_empty() {
                    body.reserve_capacity(left.len());
                    let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                    let room = room.expect("the stream lives").unwrap().min(left.len());
                    body.send_data(left.split_to(room), false).unwrap();
                }
            }
            body.send_data(Bytes::new(), true).unwrap();
        });
        let (until, mut slowest, mut answered) = (Instant::now() + seconds(3), Duration::ZERO, 0);
        while Instant::now() < until {
            let asked = Instant::now();
            let mut answers = Vec::new();
            for _ in 0..49 {
                client = client.ready().await.unwrap();
                let (answer, mut body) = client.send_request(request("awake", "/?size=0"), false).unwrap();
                body.send_data(Bytes::from_static(&[b'x'; 1000]), true).unwrap();
                answers.push(answer);
            }
            for answer in answers {
                let answer =
                    tokio::time::timeout(seconds(10), answer).await.expect("it is answered").unwrap();
                assert_eq!(answer.status(), 200);
                answered += 1;
            }
            slowest = slowest.max(asked.elapsed());
        }
        println!("{answered} answers to neighbours, the slowest 49 in {slowest:?}");
        assert!(slowest < seconds(2) && answered >= 98, "{slowest:?}, {answered}");
        let answer = tokio::time::timeout(seconds(60), answer).await.expect("it wakes").unwrap();
        assert_eq!(answer.status(), 200);
        let mut echoed = answer.into_body();
        let mut bytes = 0;
        while let Some(piece) = echoed.data().await {
            let piece = piece.unwrap();
            bytes += piece.len();
            echoed.flow_control().release_capacity(piece.len()).unwrap();
        }
        assert_eq!(bytes, 200 * 4096 * 8, "all of it comes back");
        chat.await.unwrap();
        connection.abort();
    });
}
