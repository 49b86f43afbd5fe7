//! The echo over real sockets.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use super::answer::Identity;
use super::call::Proxies;
use super::serve::{End, Plan, Server};
use super::{ExitAfter, address, exit_after};

const DEADLINE: Duration = Duration::from_secs(20);

/// An echo on a thread of its own, stopped when dropped.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<End>>,
}

impl Running {
    fn start(exit_after: Option<ExitAfter>, workers: usize, proxy: Option<SocketAddr>) -> Running {
        let proxies =
            Proxies::from_variables(|name| (name == "http_proxy").then_some(proxy)?.map(|at| at.to_string()));
        let plan = Plan { workers, exit_after, proxies, signals: false };
        let identity =
            Identity { name: "unit".into(), service: Some("svc".into()), revision: Some("svc-00001".into()) };
        let server = Server::bind("127.0.0.1:0", identity, plan).unwrap();
        let (address, stop) = (server.address(), server.stopper());
        Running { address, stop, thread: Some(std::thread::spawn(move || server.run().unwrap())) }
    }

    fn plain() -> Running {
        Running::start(None, 1, None)
    }

    fn ended(mut self) -> End {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a test's body on a runtime of its own, within the deadline.
fn within<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("the deadline") })
}

type Body = Full<Bytes>;

async fn h1(address: SocketAddr) -> hyper::client::conn::http1::SendRequest<Body> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn h2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(target: &str, headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
    let mut request = Request::builder().uri(target).method(if body.is_empty() { "GET" } else { "POST" });
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body)).unwrap()
}

async fn send1(address: SocketAddr, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
    h1(address).await.send_request(request).await
}

async fn json(response: Response<Incoming>) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

#[test]
fn it_tells_what_it_received_over_both_protocols() {
    let echo = Running::plain();
    let check = |answer: &Value, protocol: &str| {
        assert_eq!(answer["name"], "unit");
        assert_eq!(answer["service"], "svc");
        assert_eq!(answer["revision"], "svc-00001");
        assert_eq!(answer["protocol"], protocol);
        assert_eq!(answer["method"], "POST");
        assert_eq!(answer["path"], "/a/b");
        assert_eq!(answer["query"], "x=%201");
        assert_eq!(answer["headers"]["x-one"], "1");
        assert_eq!(answer["headers"]["x-two"], serde_json::json!(["a", "b\"\\"]));
        assert_eq!(answer["body_bytes"], 5);
        assert_eq!(answer["body_sha1"], "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d");
        assert_eq!(answer["concurrency"], 1);
        assert_eq!(answer["peak"], 1);
    };
    within(async {
        let headers = [("x-one", "1"), ("x-two", "a"), ("x-two", "b\"\\")];
        let answer =
            json(send1(echo.address, request("/a/b?x=%201", &headers, "hello")).await.unwrap()).await;
        check(&answer, "HTTP/1.1");
        assert_eq!((&answer["served"], &answer["connection"]), (&1.into(), &1.into()));
        let url = format!("http://{}/a/b?x=%201", echo.address);
        let mut sender = h2(echo.address).await;
        let answer = json(sender.send_request(request(&url, &headers, "hello")).await.unwrap()).await;
        check(&answer, "HTTP/2");
        assert_eq!(answer["authority"], echo.address.to_string());
        assert_eq!((&answer["served"], &answer["connection"]), (&2.into(), &2.into()));
    });
}

#[test]
fn one_connection_serves_many_requests_and_none_is_left_counted() {
    let echo = Running::plain();
    within(async {
        let mut sender = h1(echo.address).await;
        for served in 1..=20 {
            let target = ["/", "/?size=100000", "/?delay=1ms"][served % 3];
            sender.ready().await.unwrap();
            let response = sender.send_request(request(target, &[], "")).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        sender.ready().await.unwrap();
        let answer = json(sender.send_request(request("/", &[], "")).await.unwrap()).await;
        assert_eq!((&answer["served"], &answer["connection"]), (&21.into(), &1.into()));
        assert_eq!((&answer["concurrency"], &answer["peak"]), (&1.into(), &1.into()));
    });
}

#[test]
fn the_status_the_size_and_the_headers_are_those_asked_for() {
    let echo = Running::plain();
    let check = async |target: &str, status: u16, length: Option<u64>| {
        let response = send1(echo.address, request(target, &[], "")).await.unwrap();
        assert_eq!(response.status(), status, "{target}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if let Some(length) = length {
            assert_eq!(body.len() as u64, length, "{target}");
        }
    };
    within(async {
        check("/?status=418", 418, None).await;
        check("/?size=0", 200, Some(0)).await;
        check("/?size=1000000", 200, Some(1_000_000)).await;
        check("/?size=1000&chunk=7&slow=20ms", 200, Some(1000)).await;
        check("/?fail=100", 503, None).await;
        check("/?fail=0&size=1", 200, Some(1)).await;
        check("/?status=banana", 400, None).await;
        let begun = crate::clock::now();
        check("/?size=1&slow=50ms", 200, Some(1)).await;
        assert!(begun.elapsed() >= Duration::from_millis(50), "a slow body takes its time");
        let response = send1(echo.address, request("/?header=x-a:b&size=1", &[], "")).await.unwrap();
        assert_eq!(response.headers()["x-a"], "b");
        assert_eq!(response.headers()["x-echo-name"], "unit");
        assert_eq!(response.headers()["content-length"], "1");
    });
}

#[test]
fn some_of_the_requests_fail_when_a_percentage_is_asked_for() {
    let echo = Running::plain();
    let failed = within(async {
        let mut sender = h1(echo.address).await;
        let mut failed = 0;
        for _ in 0..1000 {
            sender.ready().await.unwrap();
            let response = sender.send_request(request("/?fail=30&size=0", &[], "")).await.unwrap();
            failed += u32::from(response.status() == StatusCode::SERVICE_UNAVAILABLE);
            response.into_body().collect().await.unwrap();
        }
        failed
    });
    // Ten standard deviations either way.
    assert!((155..445).contains(&failed), "{failed} of 1000");
}

/// What arrives on a socket of its own when `target` is asked for.
async fn raw(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_connection_is_dropped_where_it_was_asked_to_be() {
    let echo = Running::plain();
    within(async {
        assert_eq!(raw(echo.address, "/?close=before").await, "");
        let head = raw(echo.address, "/?close=head&size=10").await;
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let half = raw(echo.address, "/?close=body&size=10").await;
        assert!(half.contains("content-length: 10\r\n") && half.ends_with("\r\n\r\nxxxxx"), "{half}");
        let mut sender = h2(echo.address).await;
        for target in ["/?close=before", "/?close=head", "/?close=body"] {
            let url = format!("http://{}{target}", echo.address);
            let outcome = match sender.send_request(request(&url, &[], "")).await {
                Ok(response) => response.into_body().collect().await.map(|_| ()),
                Err(error) => Err(error),
            };
            assert!(outcome.is_err(), "{target}");
        }
        let url = format!("http://{}/", echo.address);
        assert_eq!(json(sender.send_request(request(&url, &[], "")).await.unwrap()).await["concurrency"], 1);
    });
}

#[test]
fn trailers_are_sent_over_both_protocols() {
    let echo = Running::plain();
    within(async {
        let answer = raw(echo.address, "/?trailer=x-sum:7&size=3").await.to_lowercase();
        assert!(answer.contains("trailer: x-sum\r\n"), "{answer}");
        assert!(answer.ends_with("3\r\nxxx\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
        let url = format!("http://{}/?trailer=x-sum:7&grpc=5", echo.address);
        let response = h2(echo.address).await.send_request(request(&url, &[], "")).await.unwrap();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(
            (&trailers["x-sum"], &trailers["grpc-status"]),
            (&"7".parse().unwrap(), &"5".parse().unwrap())
        );
    });
}

#[test]
fn a_grpc_request_gets_its_messages_back() {
    let echo = Running::plain();
    let ask = async |target: &str| -> (HeaderMap, Bytes, HeaderMap) {
        let url = format!("http://{}{target}", echo.address);
        let request =
            request(&url, &[("content-type", "application/grpc"), ("te", "trailers")], "\0\0\0\0\x01x");
        let response = h2(echo.address).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        (head.headers, body.to_bytes(), trailers)
    };
    within(async {
        let (head, body, trailers) = ask("/pkg.Service/Method").await;
        assert_eq!(head["content-type"], "application/grpc");
        assert_eq!((&body[..], &trailers["grpc-status"]), (&b"\0\0\0\0\x01x"[..], &"0".parse().unwrap()));
        let (head, body, _) = ask("/pkg.Service/Method?fail=100").await;
        assert_eq!((&body[..], &head["grpc-status"]), (&b""[..], &"14".parse().unwrap()));
    });
}

#[test]
fn calls_go_through_the_proxy_in_absolute_form_and_are_nested() {
    let far = Running::plain();
    let near = Running::start(None, 1, Some(far.address));
    within(async {
        let headers = [("x-request-id", "r1"), ("traceparent", "00-t"), ("x-other", "no")];
        let target =
            "/?call=http://b.default/x%3Fsize%3D2&call=http://c/y&call=https://c/&call=http://b.default/x";
        for _ in 0..2 {
            let answer = json(send1(near.address, request(target, &headers, "")).await.unwrap()).await;
            let calls = answer["calls"].as_array().unwrap();
            assert_eq!((&calls[0]["status"], &calls[0]["answer"]), (&200.into(), &"xx".into()));
            let nested = &calls[1]["answer"];
            assert_eq!((&nested["authority"], &nested["path"]), (&"c".into(), &"/y".into()));
            assert_eq!(nested["scheme"], "http");
            assert_eq!(
                nested["headers"],
                serde_json::json!({"host": "c", "x-request-id": "r1", "traceparent": "00-t"})
            );
            assert_eq!(calls[2]["error"], "only http:// URLs can be called");
            assert_eq!(calls[3]["answer"]["connection"], 1, "an idle connection is used again");
        }
    });
}

#[test]
fn a_call_without_a_proxy_goes_straight_and_a_refused_one_is_told() {
    let echo = Running::plain();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    within(async {
        let target = format!("/?call=http://{}/z&call=http://{gone}/", echo.address);
        let answer = json(send1(echo.address, request(&target, &[], "")).await.unwrap()).await;
        assert_eq!(answer["calls"][0]["answer"]["path"], "/z");
        assert_eq!(answer["calls"][0]["answer"].get("scheme"), None);
        assert!(answer["calls"][1]["error"].as_str().unwrap().contains("refused"), "{answer}");
    });
}

#[test]
fn a_websocket_gets_its_frames_back_and_a_close_when_the_echo_stops() {
    let echo = Running::plain();
    within(async {
        let url = format!("ws://{}/", echo.address);
        let stream = TcpStream::connect(echo.address).await.unwrap();
        let (mut socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert_eq!(response.headers()["x-echo-name"], "unit");
        let long = "long ".repeat(30_000);
        for message in [Message::text("hello"), Message::binary(vec![7; 300]), Message::text(long)] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"p")));
        echo.stop.send_replace(true);
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else {
            panic!("not a close")
        };
        assert_eq!(u16::from(frame.code), 1001);
    });
}

#[test]
fn it_stops_after_the_answers_it_was_told_to_give_and_finishes_them() {
    let echo = Running::start(Some(ExitAfter::Requests(2)), 2, None);
    within(async {
        let slow = tokio::spawn(send1(echo.address, request("/?delay=100ms", &[], "")));
        let mut sender = h1(echo.address).await;
        for _ in 0..2 {
            sender.ready().await.unwrap();
            json(sender.send_request(request("/", &[], "")).await.unwrap()).await;
        }
        // It was under way when the limit was reached, if it had arrived by then.
        if let Ok(response) = slow.await.unwrap() {
            assert_eq!(response.status(), 200);
        }
    });
    assert_eq!(echo.ended(), End::ExitAfter);
    let timed = Running::start(Some(ExitAfter::Time(Duration::from_millis(20))), 1, None);
    assert_eq!(timed.ended(), End::ExitAfter);
}

#[test]
fn a_method_that_begins_like_the_preface_and_arrives_in_pieces_is_http1() {
    let echo = Running::plain();
    within(async {
        let mut stream = TcpStream::connect(echo.address).await.unwrap();
        for piece in ["P", "R", "I-ODD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\"method\":\"PRI-ODD\""), "{answer}");
    });
}

#[test]
fn the_address_comes_from_the_flag_else_from_port_else_is_8080() {
    let check = |listen, port, expected| assert_eq!(address(listen, port), expected, "{listen:?} {port:?}");
    check(None, None, "127.0.0.1:8080");
    check(None, Some(""), "127.0.0.1:8080");
    check(None, Some("9000"), "127.0.0.1:9000");
    check(Some(":9001"), Some("9000"), "0.0.0.0:9001");
    check(Some("[::1]:9001"), None, "[::1]:9001");
}

#[test]
fn exit_after_is_a_count_or_a_duration() {
    let check = |text, expected: Option<ExitAfter>| assert_eq!(exit_after(text).ok(), expected, "{text}");
    check("100", Some(ExitAfter::Requests(100)));
    check("1m", Some(ExitAfter::Time(Duration::from_secs(60))));
    check("0", None);
    check("soon", None);
}
