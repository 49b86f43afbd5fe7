//! The fields of a Gateway.

use crate::api::shape::Shape::{Bool, Choice, List, Object, Text};
use crate::api::shape::{Field, LABELS, PORT, TEXTS, acts, inert, required};

pub(crate) const SPEC: &[Field] = &[acts("selector", LABELS), required("servers", List(&Object(SERVER)))];

const SERVER: &[Field] = &[
    required("port", Object(SERVER_PORT)),
    required("hosts", TEXTS),
    inert("name", Text, "the name of a server"),
    inert("bind", Text, "an address of its own (`--bind` decides)"),
    inert("defaultEndpoint", Text, "a default endpoint"),
    acts("tls", Object(TLS)),
];

const SERVER_PORT: &[Field] =
    &[required("number", PORT), required("name", Text), required("protocol", Text), acts("targetPort", PORT)];

const VERSION: &[&str] = &["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"];
const MODE: &[&str] =
    &["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"];

/// Settings of a server's TLS; the Sidecar kind has the same.
pub(crate) const TLS: &[Field] = &[
    acts("httpsRedirect", Bool),
    acts("mode", Choice(MODE)),
    acts("serverCertificate", Text),
    acts("privateKey", Text),
    acts("caCertificates", Text),
    acts("caCrl", Text),
    acts("credentialName", Text),
    acts("credentialNames", TEXTS),
    acts("caCertCredentialName", Text),
    acts(
        "tlsCertificates",
        List(&Object(&[
            acts("serverCertificate", Text),
            acts("privateKey", Text),
            acts("caCertificates", Text),
        ])),
    ),
    acts("subjectAltNames", TEXTS),
    acts("verifyCertificateSpki", TEXTS),
    acts("verifyCertificateHash", TEXTS),
    acts("minProtocolVersion", Choice(VERSION)),
    acts("maxProtocolVersion", Choice(VERSION)),
    acts("cipherSuites", TEXTS),
    acts("insecureSkipVerify", Bool),
];
