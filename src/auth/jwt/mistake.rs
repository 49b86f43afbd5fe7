//! What can be wrong with a token, in the words of Istio's proxy, which people search for.

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Mistake {
    Form,
    HeaderBase64,
    HeaderJson,
    HeaderAlg,
    UnknownAlg,
    HeaderKid,
    PayloadBase64,
    PayloadJson,
    Iss,
    Sub,
    Jti,
    Aud,
    Iat,
    IatRange,
    Nbf,
    NbfRange,
    Exp,
    ExpRange,
    SignatureBase64,
    Issuer,
    NotYet,
    Expired,
    Audience,
    Verification,
    NoSuchKey,
    JwksParse,
    JwksNoKeys,
    JwksFetch,
}

impl Mistake {
    /// The body of the answer.
    pub const fn text(self) -> &'static str {
        match self {
            Mistake::Form => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Mistake::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Mistake::HeaderJson => "Jwt header is an invalid JSON",
            Mistake::HeaderAlg => "Jwt header [alg] field is required and must be a string",
            Mistake::UnknownAlg => "Jwt header [alg] is not supported",
            Mistake::HeaderKid => "Jwt header [kid] field is not a string",
            Mistake::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Mistake::PayloadJson => "Jwt payload is an invalid JSON",
            Mistake::Iss => "Jwt payload [iss] field is not a string",
            Mistake::Sub => "Jwt payload [sub] field is not a string",
            Mistake::Jti => "Jwt payload [jti] field is not a string",
            Mistake::Aud => "Jwt payload [aud] field is not a string or string list",
            Mistake::Iat => "Jwt payload [iat] field is not an integer",
            Mistake::IatRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Mistake::Nbf => "Jwt payload [nbf] field is not an integer",
            Mistake::NbfRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Mistake::Exp => "Jwt payload [exp] field is not an integer",
            Mistake::ExpRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Mistake::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Mistake::Issuer => "Jwt issuer is not configured",
            Mistake::NotYet => "Jwt not yet valid",
            Mistake::Expired => "Jwt is expired",
            Mistake::Audience => "Audiences in Jwt are not allowed",
            Mistake::Verification => "Jwt verification fails",
            Mistake::NoSuchKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Mistake::JwksParse => "Jwks is an invalid JSON",
            Mistake::JwksNoKeys => "Jwks doesn't have any valid public key",
            Mistake::JwksFetch => "Jwks remote fetch is failed",
        }
    }

    /// Whether the token is good and only meant for others.
    pub const fn is_forbidden(self) -> bool {
        matches!(self, Mistake::Audience)
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}
