//! ID tokens: reading them, and checking who signed them (RFC 7515, RFC 7517, RFC 7518).
//!
//! Only RS256 and ES256: `none` and the symmetric algorithms, whose key would be public, are
//! refused before anything else is looked at.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The most keys of one issuer.
const MAX_KEYS: usize = 64;
/// How far an issuer's clock may be from this one's, in seconds.
pub const SKEW_S: u64 = 60;

/// A token's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Not signed at all: an emulator's.
    None,
}

/// A token whose signature nobody has checked yet.
#[derive(Debug)]
pub struct Token<'a> {
    /// How it says it is signed.
    pub algorithm: Algorithm,
    /// With which key.
    pub key_id: Option<String>,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

/// What a token says.
#[derive(Clone, Debug)]
pub struct Claims(pub Map<String, Value>);

/// Why a token isn't believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is no token.
    #[error("this is no token")]
    Malformed,
    /// Its algorithm is none that is believed.
    #[error("the token is not signed with RS256 or ES256")]
    Algorithm,
    /// Nobody who may sign it has such a key.
    #[error("the token's key is not the issuer's")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is from somebody else, for somebody else, or for another login.
    #[error("the token's claim {0} is wrong")]
    Claim(&'static str),
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Reads a token in its compact form (RFC 7515 section 7.1).
    ///
    /// # Errors
    /// [`TokenError::Malformed`], [`TokenError::Algorithm`].
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| {
            let bytes = BASE64URL_NOPAD.decode(part.as_bytes());
            bytes.map_err(|_| TokenError::Malformed)
        };
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 section 4.1.11: what must be understood and isn't makes a token invalid.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            "none" => Algorithm::None,
            _ => return Err(TokenError::Algorithm),
        };
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)?;
        Ok(Self {
            algorithm,
            key_id: header.kid,
            claims: Claims(claims),
            signed,
            signature: decode(signature)?,
        })
    }

    /// Checks the signature with one of `keys`.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] if newer keys might do; [`TokenError::Signature`],
    /// [`TokenError::Algorithm`].
    pub fn verify(self, keys: &Keys) -> Result<Claims, TokenError> {
        if self.algorithm == Algorithm::None {
            return Err(TokenError::Algorithm);
        }
        let is_meant = |key: &&Key| {
            key.algorithm == self.algorithm
                && (self.key_id.is_none() || key.id.is_none() || key.id == self.key_id)
        };
        let mut error = TokenError::UnknownKey;
        for key in keys.0.iter().filter(is_meant) {
            if key.verifies(self.signed.as_bytes(), &self.signature) {
                return Ok(self.claims);
            }
            error = TokenError::Signature;
        }
        Err(error)
    }

    /// What a token says that isn't signed. For an emulator's alone.
    ///
    /// # Errors
    /// [`TokenError::Algorithm`] if it is signed.
    pub fn unsigned(self) -> Result<Claims, TokenError> {
        match self.algorithm {
            Algorithm::None if self.signature.is_empty() => Ok(self.claims),
            _ => Err(TokenError::Algorithm),
        }
    }
}

impl Claims {
    /// A claim that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is a time, in seconds since 1970 (RFC 7519 section 2: NumericDate).
    pub fn time(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        // A fraction of a second doesn't matter; `as` saturates.
        value.as_u64().or_else(|| value.as_f64().map(|s| s as u64))
    }

    /// A claim that is a list of texts, or one text.
    pub fn list(&self, name: &str) -> Vec<&str> {
        match self.0.get(name) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Checks who it is from and for, and that its time is now.
    ///
    /// # Errors
    /// [`TokenError::Claim`], [`TokenError::Expired`].
    ///
    /// Source: OpenID Connect Core 1.0 section 3.1.3.7.
    pub fn check(&self, issuer: &str, audience: &str, now: u64) -> Result<(), TokenError> {
        if self.text("iss") != Some(issuer) {
            return Err(TokenError::Claim("iss"));
        }
        let audiences = self.list("aud");
        if !audiences.contains(&audience) {
            return Err(TokenError::Claim("aud"));
        }
        match self.text("azp") {
            Some(party) if party != audience => return Err(TokenError::Claim("azp")),
            None if audiences.len() > 1 => return Err(TokenError::Claim("azp")),
            _ => {}
        }
        if self.text("sub").is_none_or(str::is_empty) {
            return Err(TokenError::Claim("sub"));
        }
        let expires = self.time("exp").ok_or(TokenError::Claim("exp"))?;
        if expires.saturating_add(SKEW_S) <= now {
            return Err(TokenError::Expired);
        }
        let issued = self.time("iat").ok_or(TokenError::Claim("iat"))?;
        let not_before = self.time("nbf").unwrap_or(0);
        match issued.max(not_before) > now.saturating_add(SKEW_S) {
            true => Err(TokenError::Claim("iat")),
            false => Ok(()),
        }
    }
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    /// RSA: the modulus. ECDSA: the point, uncompressed.
    first: Vec<u8>,
    /// RSA: the exponent.
    second: Vec<u8>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a JWK set (RFC 7517 section 5); keys of kinds that aren't used here are passed over.
    /// Nothing if it is no such set.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(bytes).ok()?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        Some(Self(keys.filter_map(key).collect()))
    }

    /// Whether none of them can be used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.purpose.is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let decode = |part: Option<String>| BASE64URL_NOPAD.decode(part?.as_bytes()).ok();
    let (algorithm, name, first, second) = match jwk.kty.as_str() {
        "RSA" => (Algorithm::Rs256, "RS256", decode(jwk.n)?, decode(jwk.e)?),
        "EC" if jwk.crv.as_deref() == Some("P-256") => {
            // SEC 1 section 2.3.3: 04, then both coordinates.
            let point = [vec![4], decode(jwk.x)?, decode(jwk.y)?].concat();
            (Algorithm::Es256, "ES256", point, Vec::new())
        }
        _ => return None,
    };
    if jwk.alg.is_some_and(|alg| alg != name) {
        return None;
    }
    Some(Key {
        id: jwk.kid,
        algorithm,
        first,
        second,
    })
}

impl Key {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Rs256 => RsaPublicKeyComponents {
                n: &self.first,
                e: &self.second,
            }
            .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
            .is_ok(),
            Algorithm::Es256 => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &self.first)
                    .verify(message, signature)
                    .is_ok()
            }
            Algorithm::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// RFC 7515 appendix A.3: ES256, its key and its token.
    const ES256_KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    /// RFC 7515 appendix A.2: RS256, its key and its token.
    const RS256_KEY: &str = r#"{"keys":[{"kty":"oct","k":"AA"},{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    fn keys(text: &str) -> Keys {
        Keys::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn published_tokens_are_verified() {
        for (token, good, other) in [(ES256, ES256_KEY, RS256_KEY), (RS256, RS256_KEY, ES256_KEY)] {
            let claims = Token::parse(token).unwrap().verify(&keys(good)).unwrap();
            assert_eq!(claims.text("iss"), Some("joe"));
            assert_eq!(claims.time("exp"), Some(1_300_819_380));
            let error = Token::parse(token)
                .unwrap()
                .verify(&keys(other))
                .unwrap_err();
            assert_eq!(error, TokenError::UnknownKey);
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let forged = format!(
                "{signed}.{}",
                signature.replacen(char::is_alphabetic, "_", 1)
            );
            let error = Token::parse(&forged)
                .unwrap()
                .verify(&keys(good))
                .unwrap_err();
            assert_eq!(error, TokenError::Signature);
        }
    }

    #[test]
    fn weak_algorithms_are_refused() {
        let token = |alg: &str| {
            let header = BASE64URL_NOPAD.encode(format!(r#"{{"alg":"{alg}"}}"#).as_bytes());
            format!("{header}.{}.", BASE64URL_NOPAD.encode(b"{}"))
        };
        for alg in ["HS256", "HS512", "RS1", "None", "PS256"] {
            assert_eq!(
                Token::parse(&token(alg)).unwrap_err(),
                TokenError::Algorithm
            );
        }
        let none = token("none");
        let error = Token::parse(&none)
            .unwrap()
            .verify(&keys(RS256_KEY))
            .unwrap_err();
        assert_eq!(error, TokenError::Algorithm);
        assert!(Token::parse(&none).unwrap().unsigned().is_ok());
        assert!(Token::parse(RS256).unwrap().unsigned().is_err());
    }

    #[test]
    fn claims_are_checked() {
        let good = json!({"iss": "i", "aud": "me", "sub": "s", "exp": 1000, "iat": 900});
        let check = |change: Value, expected: Result<(), TokenError>| {
            let mut claims = good.as_object().unwrap().clone();
            for (name, value) in change.as_object().unwrap() {
                claims.insert(name.clone(), value.clone());
            }
            assert_eq!(Claims(claims).check("i", "me", 1000), expected, "{change}");
        };
        check(json!({}), Ok(()));
        check(json!({"exp": 940}), Err(TokenError::Expired));
        check(json!({"exp": 941}), Ok(()));
        check(json!({"exp": null}), Err(TokenError::Claim("exp")));
        check(json!({"iat": 1060}), Ok(()));
        check(json!({"iat": 1061}), Err(TokenError::Claim("iat")));
        check(json!({"nbf": 1061}), Err(TokenError::Claim("iat")));
        check(json!({"iss": "j"}), Err(TokenError::Claim("iss")));
        check(json!({"aud": "you"}), Err(TokenError::Claim("aud")));
        check(json!({"aud": ["you", "me"]}), Err(TokenError::Claim("azp")));
        check(json!({"aud": ["you", "me"], "azp": "me"}), Ok(()));
        check(json!({"azp": "you"}), Err(TokenError::Claim("azp")));
        check(json!({"sub": ""}), Err(TokenError::Claim("sub")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text: String, bytes: Vec<u8>, json in "[a-z0-9]{0,8}", value: f64) {
            let _ = Token::parse(&text);
            let _ = Keys::parse(&bytes);
            let header = BASE64URL_NOPAD.encode(br#"{"alg":"RS256"}"#);
            let claims = json!({"exp": value, "iat": json, "aud": [value]}).to_string();
            let token = format!("{header}.{}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()), BASE64URL_NOPAD.encode(&bytes));
            if let Ok(token) = Token::parse(&token) {
                let _ = token.claims.check("", "", 0);
                let _ = token.verify(&keys(RS256_KEY));
            }
        }
    }
}
