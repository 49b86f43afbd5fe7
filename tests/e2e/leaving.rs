//! Fewer instances: those that work stay, and a websocket is work for as long as it lasts.

use crate::support::wait::becomes_true;
use crate::support::{Proxy, Target, eventually, seconds, together, yaml};
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A websocket to the function `chat`, and what drives it.
pub struct Chat {
    runtime: Runtime,
    socket: WebSocketStream<TcpStream>,
}

impl Chat {
    #[track_caller]
    pub fn open(front: Target) -> Chat {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = runtime.block_on(async {
            let stream = TcpStream::connect(front.address()).await.unwrap();
            let asked = tokio_tungstenite::client_async("ws://chat.default.localhost/room", stream);
            let (socket, response) = tokio::time::timeout(seconds(20), asked).await.unwrap().unwrap();
            assert_eq!(response.status(), 101);
            socket
        });
        Chat { runtime, socket }
    }

    /// Whether a message comes back.
    pub fn answers(&mut self) -> bool {
        let socket = &mut self.socket;
        let talk = async {
            socket.send(Message::text("still there?")).await.ok()?;
            let answer = tokio::time::timeout(seconds(5), socket.next()).await.ok()??.ok()?;
            (answer == Message::text("still there?")).then_some(())
        };
        self.runtime.block_on(talk).is_some()
    }

    pub fn close(mut self) {
        self.runtime.block_on(self.socket.close(None)).unwrap();
    }
}

/// What `/functions` says of each instance, by name: its state and how many it has in flight.
fn instances(proxy: &Proxy) -> BTreeMap<String, (String, u64)> {
    let functions = proxy.admin().get("/functions").send().json();
    let all = functions["functions"][0]["instances"].as_array().unwrap().clone();
    let one = |one: serde_json::Value| {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        (text("name"), (text("state"), one["in_flight"].as_u64().unwrap()))
    };
    all.into_iter().map(one).collect()
}

const FOUR: Duration = Duration::from_secs(4);

#[test]
fn of_several_instances_the_one_with_a_websocket_is_the_last_to_go_and_only_when_that_has_ended() {
    let annotations = "autoscaling.knative.dev/window: 6s";
    let proxy =
        Proxy::with(yaml::function("chat", annotations, "containerConcurrency: 1")).workers(2).start();
    let front = proxy.front();
    let mut chat = Chat::open(front);
    let with_chat = instances(&proxy).into_keys().next().expect("one that speaks");
    together(4, |_| {
        let request = front.get("/?delay=2s").host("chat.default.localhost").timeout(seconds(30));
        request.send().expect(200);
    });
    assert!(instances(&proxy).len() >= 3, "those at work at once have one each: {:?}", instances(&proxy));
    // The one with the websocket is the longest unused: it would be the first if that were all that counts.
    eventually("the others have gone", seconds(40), || {
        let all = instances(&proxy);
        let own = all.get(&with_chat).unwrap_or_else(|| panic!("it went: {all:?}"));
        assert_eq!(own, &("ready".to_owned(), 1), "{all:?}");
        (all.len() == 1).then_some(())
    });
    assert!(!becomes_true(seconds(6) + FOUR, || instances(&proxy).len() != 1), "{:?}", instances(&proxy));
    assert!(chat.answers(), "it outlasts the window");
    chat.close();
    eventually("then it goes, too", seconds(40), || instances(&proxy).is_empty().then_some(()));
}

#[test]
fn an_instance_that_is_no_longer_wanted_ends_when_its_websocket_does() {
    let of = |variable: &str| {
        yaml::function("chat", "", "").trim_end_matches("---\n").to_owned()
            + &format!("        env: [{{name: WHICH, value: {variable}}}]\n---\n")
    };
    let proxy = Proxy::with(of("one")).workers(1).start();
    let mut chat = Chat::open(proxy.front());
    let first = instances(&proxy).into_keys().next().expect("one that speaks");
    proxy.write("config.yaml", &of("two"));
    eventually("it takes no more", seconds(10), || {
        (instances(&proxy).get(&first)?.0 == "draining").then_some(())
    });
    let served = proxy.get("/").host("chat.default.localhost").timeout(seconds(30)).send().expect(200).json();
    assert!(instances(&proxy).len() == 2, "another one answers: {served}");
    assert!(chat.answers());
    chat.close();
    eventually("it has ended", seconds(20), || (!instances(&proxy).contains_key(&first)).then_some(()));
}
