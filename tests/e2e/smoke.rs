//! The shortest way through: one origin, one proxy, one request.

use crate::support::{Origin, Proxy};

#[test]
fn a_request_reaches_the_origin_and_its_answer_comes_back() {
    let origin = Origin::h1().reply("hello");
    let proxy = Proxy::to(&origin).start();
    let response = proxy.get("/path?x=1").host("shop").send().expect(200);
    assert_eq!(response.text(), "hello");
    assert_eq!(origin.last().uri, "/path?x=1");
    assert_eq!(origin.last().header("host"), "shop");
}
