//! Clients of other makes: websocket, gRPC, h2load.

use crate::support::process::Process;
use crate::support::proxy::Directory;
use crate::support::tools::{needs, run};
use crate::support::{Origin, Proxy, Target, eventually, seconds, yaml};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use tokio_tungstenite::tungstenite::Message;

#[test]
fn a_websocket_carries_frames_both_ways_and_closes() {
    let proxy = Proxy::with(yaml::function("chat", "", "")).start();
    let address = proxy.front().address();
    let talk = async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut socket, response) =
            tokio_tungstenite::client_async("ws://chat.default.localhost/room", stream).await.unwrap();
        assert_eq!(response.status(), 101);
        let large = "x".repeat(300_000);
        for text in ["one", "two", &large] {
            socket.send(Message::text(text)).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
        }
        socket.send(Message::binary(vec![0, 1, 2])).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![0, 1, 2]));
        socket.close(None).await.unwrap();
        while let Some(message) = socket.next().await {
            assert!(message.is_ok_and(|message| message.is_close()));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(seconds(20), talk).await }).expect("within 20 s");
}

const GRPC_SERVER: &str = r#"
import grpc, sys, time
from concurrent import futures

def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "t"),))
    return request.upper()

def stream(request, context):
    for number in range(5):
        yield b"%s-%d" % (request, number)

def talk(requests, context):
    for request in requests:
        yield b"re:" + request

def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order")

def slow(request, context):
    time.sleep(5)
    return request

class Shop(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/shop.Orders/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/shop.Orders/Stream": grpc.unary_stream_rpc_method_handler(stream),
            "/shop.Orders/Talk": grpc.stream_stream_rpc_method_handler(talk),
            "/shop.Orders/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/shop.Orders/Slow": grpc.unary_unary_rpc_method_handler(slow),
        }.get(details.method)

server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Shop()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"#;

const GRPC_CLIENT: &str = r#"
import grpc, json, queue, sys
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", "orders.test"), ("grpc.enable_http_proxy", 0)])
said = {}

answer, call = channel.unary_unary("/shop.Orders/Unary").with_call(b"order", timeout=10)
said["unary"] = answer.decode()
said["trailer"] = dict(call.trailing_metadata()).get("x-trailer")
said["stream"] = [item.decode() for item in channel.unary_stream("/shop.Orders/Stream")(b"s", timeout=10)]

# Each message is sent only when the answer to the one before it has arrived.
outgoing = queue.Queue()
incoming = channel.stream_stream("/shop.Orders/Talk")(iter(outgoing.get, None), timeout=10)
said["talk"] = []
for message in (b"a", b"b", b"c"):
    outgoing.put(message)
    said["talk"].append(next(incoming).decode())
outgoing.put(None)
said["rest"] = [item.decode() for item in incoming]

for name, deadline in (("Fail", 10), ("Slow", 0.5), ("Missing", 10)):
    try:
        channel.unary_unary("/shop.Orders/" + name)(b"", timeout=deadline)
        said[name] = "OK"
    except grpc.RpcError as error:
        said[name] = error.code().name
        said[name + " details"] = error.details()
print(json.dumps(said))
"#;

#[test]
fn grpc_streams_both_ways_and_its_trailers_arrive() {
    needs!("python3", "grpcio");
    let scripts = Directory::new();
    scripts.write("server.py", GRPC_SERVER);
    scripts.write("client.py", GRPC_CLIENT);
    let mut command = Command::new("python3");
    command.arg(scripts.path().join("server.py"));
    let server = Process::start(command);
    let port: u16 =
        eventually("the gRPC server listens", seconds(20), || server.stdout.lock().first()?.parse().ok());
    let upstream = SocketAddr::from(([127, 0, 0, 1], port));
    let text = yaml::service_entry("orders.test", "GRPC", &[upstream])
        + &yaml::virtual_service("orders", "orders.test", "- route: [{destination: {host: orders.test}}]");
    let proxy = Proxy::with(text).start();
    let client = scripts.path().join("client.py");
    for listener in [proxy.front(), proxy.mesh()] {
        let outcome = run("python3", &[client.to_str().unwrap(), &listener.address().to_string()]);
        assert!(outcome.success, "{outcome:?}");
        let said: Value = serde_json::from_str(outcome.stdout.trim()).unwrap();
        assert_eq!((&said["unary"], &said["trailer"]), (&"ORDER".into(), &"t".into()), "{said}");
        assert_eq!(said["stream"], serde_json::json!(["s-0", "s-1", "s-2", "s-3", "s-4"]));
        assert_eq!(said["talk"], serde_json::json!(["re:a", "re:b", "re:c"]));
        assert_eq!(said["rest"], serde_json::json!([]));
        assert_eq!((&said["Fail"], &said["Fail details"]), (&"NOT_FOUND".into(), &"no such order".into()));
        assert_eq!(said["Slow"], "DEADLINE_EXCEEDED");
        assert_eq!(said["Missing"], "UNIMPLEMENTED");
    }
    let grpc = [("request_protocol", "grpc"), ("grpc_response_status", "5")];
    assert_eq!(proxy.metrics().sum("istio_requests_total", &grpc), 2.0);
}

#[test]
fn a_grpc_client_without_an_upstream_gets_a_grpc_status() {
    let text = yaml::service_entry("orders.test", "GRPC", &[]);
    let proxy = Proxy::with(text).start();
    let request = proxy.mesh().post("/shop.Orders/Unary", vec![0; 5]).host("orders.test").h2();
    let response =
        request.header("content-type", "application/grpc").header("te", "trailers").send().expect(200);
    let status = response.headers.get("grpc-status").or(response.trailers.get("grpc-status"));
    assert_eq!(status.map(|status| status.as_bytes()), Some(&b"14"[..]), "{response:?}");
}

/// Requests that h2load says were answered 2xx.
fn h2load(target: Target, arguments: &[&str]) -> usize {
    let url = target.url("/");
    let mut all = arguments.to_vec();
    all.push(&url);
    let outcome = run("h2load", &all);
    let line = outcome.stdout.lines().find(|line| line.starts_with("status codes:"));
    let line = line.unwrap_or_else(|| panic!("{outcome:?}"));
    line.split_whitespace().nth(2).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn h2load_gets_every_answer_in_both_versions() {
    needs!("h2load");
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).access_log("off").start();
    assert_eq!(h2load(proxy.front(), &["-n", "3000", "-c", "8", "-m", "10"]), 3000);
    assert_eq!(h2load(proxy.front(), &["-n", "3000", "-c", "8", "--h1"]), 3000);
    assert_eq!(origin.hits(), 6000);
    assert_eq!(proxy.metrics().sum("istio_requests_total", &[("response_code", "200")]), 6000.0);
}

/// The short form; `PILOTLIGHT_SOAK_REQUESTS=1000000` makes it the long one.
#[test]
fn memory_does_not_grow_with_the_number_of_requests() {
    needs!("h2load");
    let soak = std::env::var("PILOTLIGHT_SOAK_REQUESTS").unwrap_or("30000".to_owned());
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).workers(1).start();
    let load = |count: &str| {
        assert_eq!(h2load(proxy.front(), &["-n", count, "-c", "16", "--h1"]).to_string(), count)
    };
    load("10000");
    let before = resident(proxy.pid());
    load(&soak);
    let after = resident(proxy.pid());
    assert!(after < before + 4096, "{before} KiB before, {after} KiB after {soak} requests more");
    println!("{before} KiB before, {after} KiB after {soak} requests more");
}

#[test]
fn a_client_that_keeps_its_connection_after_a_request_costs_little_memory() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).workers(1).start();
    let connect = |count: usize| -> Vec<TcpStream> {
        let one = || {
            let mut stream = TcpStream::connect(proxy.front().address()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: any.test\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
        };
        (0..count).map(|_| one()).collect()
    };
    let _warm = connect(100);
    let before = resident(proxy.pid());
    let _kept = connect(400);
    let each = resident(proxy.pid()).saturating_sub(before) as f64 / 400.0;
    println!("{each:.1} KiB a connection");
    // About 9 in fact; what a handshake needs must not stay.
    assert!(each < 16.0, "{each:.1} KiB a connection");
}

/// Resident memory in KiB.
pub fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
