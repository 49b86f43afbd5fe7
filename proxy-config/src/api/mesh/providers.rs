//! Extension providers that decide for CUSTOM policies.

use super::Provider;
use crate::decode::Cursor;
use crate::model::ExtAuthz;

const E: &str = "IST0106";

pub(super) fn decode(list: &Cursor<'_>) -> Vec<Provider> {
    for item in list.repeated("name") {
        item.field("name").error(E, "extension provider names must be unique");
    }
    list.items().filter_map(|item| provider(&item)).collect()
}

fn provider(item: &Cursor<'_>) -> Option<Provider> {
    let (http, grpc) = (item.field("envoyExtAuthzHttp"), item.field("envoyExtAuthzGrpc"));
    if http.is_present() && grpc.is_present() {
        item.error(E, "only one provider can be set");
    }
    let of = if http.is_present() { http } else { grpc };
    if !of.is_present() {
        return None;
    }
    let default = ExtAuthz::default();
    let strings = |name: &str| of.field(name).strings().into_iter().map(|text| text.value).collect();
    let mut include: Vec<String> = strings("includeRequestHeadersInCheck");
    include.extend::<Vec<String>>(strings("includeHeadersInCheck"));
    let prefix = of.field("pathPrefix");
    if prefix.text().is_some_and(|text| !text.is_empty() && !text.starts_with('/')) {
        prefix.error(E, "pathPrefix must begin with `/`");
    }
    let body = of.field("includeRequestBodyInCheck");
    let additional = of.field("includeAdditionalHeadersInCheck").string_map();
    let service = of.field("service");
    if service.text().is_some_and(|text| text.is_empty() || text.matches('/').count() > 1) {
        service.error(E, "must be a host in full, or `namespace/host`");
    }
    Some(Provider {
        path: service.path().to_owned(),
        port: of.field("port").number()?,
        service: service.text_at()?,
        authz: ExtAuthz {
            name: item.field("name").string()?,
            grpc: item.field("envoyExtAuthzGrpc").is_present(),
            path_prefix: prefix.string().unwrap_or_default(),
            timeout: of.field("timeout").duration().unwrap_or(default.timeout),
            fail_open: of.field("failOpen").boolean().unwrap_or(false),
            status_on_error: status(&of.field("statusOnError")).unwrap_or(default.status_on_error),
            include_headers: include.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            additional_headers: additional
                .into_iter()
                .map(|(name, value)| (name.value.to_ascii_lowercase(), value.value))
                .collect(),
            to_upstream_on_allow: strings("headersToUpstreamOnAllow"),
            to_downstream_on_allow: strings("headersToDownstreamOnAllow"),
            to_downstream_on_deny: strings("headersToDownstreamOnDeny"),
            body: body.is_present().then(|| {
                let bytes = body.field("maxRequestBytes").number().unwrap_or(0);
                (bytes, body.field("allowPartialMessage").boolean().unwrap_or(false))
            }),
            ..default
        },
    })
}

fn status(cursor: &Cursor<'_>) -> Option<u16> {
    let text = cursor.text().filter(|text| !text.is_empty())?;
    let status = text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    if status.is_none() {
        cursor.error(E, format!("statusOnError {text:?} is not an HTTP status"));
    }
    status
}
