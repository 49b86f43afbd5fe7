//! Changes to headers.

use super::wire;
use crate::decode::Cursor;
use crate::model::{HeaderOps, MessageOps};
use crate::report::At;

/// `headers: {request, response}`.
pub(super) fn header_ops(cursor: &Cursor<'_>) -> HeaderOps {
    let ops = HeaderOps {
        request: message_ops(&cursor.field("request"), true),
        response: message_ops(&cursor.field("response"), false),
    };
    let authorities = |list: &[(String, String)]| list.iter().filter(|(name, _)| name == "host").count();
    if authorities(&ops.request.set) + authorities(&ops.request.add) > 1 {
        cursor.error("IST0106", "authority header cannot be set multiple times");
    }
    ops
}

fn message_ops(cursor: &Cursor<'_>, request: bool) -> MessageOps {
    let pairs = |name: &str| -> Vec<(String, String)> {
        let field = cursor.field(name);
        let mut pairs: Vec<(String, String)> = field
            .entries()
            .filter_map(|(key, value)| {
                let name = changed_name(&value, &key, request)?;
                let text = value.string()?;
                is_value(&value, &text).then_some((name, text))
            })
            .collect();
        pairs.sort();
        pairs
    };
    let (mut set, mut add) = (pairs("set"), pairs("add"));
    // There is one authority: adding to it is setting it.
    let (hosts, rest) = std::mem::take(&mut add).into_iter().partition(|(name, _)| request && name == "host");
    add = rest;
    set.extend::<Vec<_>>(hosts);
    let remove = cursor.field("remove");
    let remove = remove.items().filter_map(|item| {
        let key = item.text_at()?;
        let name = key.value.to_ascii_lowercase();
        if name.starts_with(':') || request && name == "host" {
            item.error("IST0106", format!("header {name:?} cannot be removed"));
            return None;
        }
        is_name(&item, &name).then_some(name)
    });
    MessageOps { set, add, remove: remove.collect() }
}

/// A name in lower case, `:authority` as `host`.
fn changed_name(cursor: &Cursor<'_>, key: &At<&str>, request: bool) -> Option<String> {
    let name = key.value.to_ascii_lowercase();
    match name.as_str() {
        ":authority" if request => Some("host".to_owned()),
        _ if name.starts_with(':') => {
            cursor.error("IST0106", format!("pseudo header {name:?} cannot be changed"));
            None
        }
        name if OURS.contains(&name) => {
            cursor.error("IST0106", format!("header {name:?} is written by the proxy itself"));
            None
        }
        _ => is_name(cursor, &name).then_some(name),
    }
}

/// Fields that frame a message or belong to one connection.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether `name` can name a header.
pub(super) fn is_name(cursor: &Cursor<'_>, name: &str) -> bool {
    let good = wire::is_token(name);
    if !good {
        cursor.error("IST0106", format!("header name {name:?} is not a valid header name"));
    }
    good
}

/// Whether `value` can stand in a header, its `%OPERATOR%`s known and closed.
fn is_value(cursor: &Cursor<'_>, value: &str) -> bool {
    match wire::value_problem(value) {
        None => true,
        Some((message, help)) => {
            cursor.error_with_help("IST0106", message, help);
            false
        }
    }
}
