//! One conversation with an authority: an account, an order, proofs, a certificate.
//!
//! In: what is wanted, and the folder. Out: the certificate, published, or why not. An account is kept
//! before it is used. What is published was read, fits its key, is for the names, and is good now.

use std::time::{Duration, SystemTime};

use altnet_relay::acme::MAX_FILE_BYTES;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::http::Client;
use crate::leaf::{Leaf, Unfit};
use crate::store::{Lock, Shown, Store};
use crate::trouble::{Trouble, is_limit};

/// How an order is looked at again: soon at first, then ever more rarely, as the authority says.
const LOOKING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(300));
/// How far ahead of ours an authority's clock may be.
const CLOCK_SLACK_S: u64 = 24 * 3600;
/// The kind of state in which the account is kept.
const ACCOUNT: &str = "account";

/// An account at an authority, as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    directory: String,
    contact: Vec<String>,
    credentials: AccountCredentials,
}

/// An authority that knows us.
pub struct Authority<'a> {
    config: &'a Config,
    store: &'a Store,
    account: Account,
}

impl std::fmt::Debug for Authority<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authority")
            .field(&self.config.directory)
            .finish()
    }
}

impl<'a> Authority<'a> {
    /// Comes with the account that is kept, or makes one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn meet(
        config: &'a Config,
        store: &'a Store,
        client: &Client,
    ) -> Result<Self, Trouble> {
        if let Some((known, contact)) = Self::kept(config, store, client).await? {
            if contact != config.contact {
                Self::tell_contact(config, store, &known.account).await?;
            }
            return Ok(known);
        }
        let urls = config.contact_urls();
        let contact: Vec<&str> = urls.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: config.agree_to_terms,
            only_return_existing: false,
        };
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let (account, credentials) = builder.create(&new, config.directory.clone(), None).await?;
        store.save(ACCOUNT, &kept_as(config, credentials))?;
        Ok(Self {
            config,
            store,
            account,
        })
    }

    /// Comes with the account that is kept, if there is one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn known(
        config: &'a Config,
        store: &'a Store,
        client: &Client,
    ) -> Result<Option<Self>, Trouble> {
        let kept = Self::kept(config, store, client).await?;
        Ok(kept.map(|(known, _)| known))
    }

    /// The account that is kept, and the contacts that the authority has of it.
    async fn kept(
        config: &'a Config,
        store: &'a Store,
        client: &Client,
    ) -> Result<Option<(Self, Vec<String>)>, Trouble> {
        let kept: Option<Kept> = store.load(ACCOUNT)?;
        let Some(kept) = kept.filter(|kept| kept.directory == config.directory) else {
            return Ok(None);
        };
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let known = Self {
            config,
            store,
            account: builder.from_credentials(kept.credentials).await?,
        };
        Ok(Some((known, kept.contact)))
    }

    /// Forgets an account that the authority doesn't know any more.
    ///
    /// # Errors
    /// [`Trouble::Store`].
    pub fn forget(store: &Store) -> Result<(), Trouble> {
        Ok(store.forget(ACCOUNT)?)
    }

    async fn tell_contact(
        config: &Config,
        store: &Store,
        account: &Account,
    ) -> Result<(), Trouble> {
        let urls = config.contact_urls();
        let contact: Vec<&str> = urls.iter().map(String::as_str).collect();
        account.update_contacts(&contact).await?;
        if let Some(kept) = store.load::<Kept>(ACCOUNT)? {
            store.save(ACCOUNT, &kept_as(config, kept.credentials))?;
        }
        Ok(())
    }

    /// Asks when a certificate is to be renewed: a window, both ends in seconds since 1970, and after how
    /// long to ask again. `None` if the authority has nothing to say of that.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn window(
        &self,
        named: &CertificateIdentifier<'_>,
    ) -> Result<Option<((u64, u64), Duration)>, Trouble> {
        match self.account.renewal_info(named).await {
            Ok((said, again)) => {
                let window = said.suggested_window;
                let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
                let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
                Ok(Some(((seconds(start), seconds(end)), again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Gets a certificate and publishes it. `replaced` is what the authority calls the one that it takes
    /// the place of.
    ///
    /// # Errors
    /// [`Trouble`]; what was published before still is.
    pub async fn get(
        &self,
        replaced: Option<&CertificateIdentifier<'_>>,
        lock: &Lock,
    ) -> Result<Leaf, Trouble> {
        self.store.clear_answers(lock)?;
        let mut order = self.order(replaced).await?;
        let answers = self.prove(&mut order).await?;
        match order.poll_ready(&LOOKING).await {
            Ok(OrderStatus::Ready) => drop(answers),
            Ok(_) => return Err(why_invalid(&mut order, None).await),
            Err(Error::Api(problem)) => return Err(why_invalid(&mut order, Some(problem)).await),
            Err(e) => return Err(e.into()),
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(self.config.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        order
            .finalize_csr(params.serialize_request(&key)?.der())
            .await?;
        let chain = order.poll_certificate(&LOOKING).await?;
        let key = Zeroizing::new(key.serialize_pem());
        let text = Zeroizing::new([key.as_bytes(), chain.as_bytes()].concat());
        // Who reads it reads no more: it would be got again and again.
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(Unfit::TooLong.into());
        }
        let leaf = Leaf::of_pem(&text)?;
        self.check(&leaf)?;
        self.store.publish(&text)?;
        Ok(leaf)
    }

    async fn order(&self, replaced: Option<&CertificateIdentifier<'_>>) -> Result<Order, Trouble> {
        let names = self.config.names.iter().cloned();
        let names: Vec<Identifier> = names.map(Identifier::Dns).collect();
        if let Some(replaced) = replaced {
            let order = NewOrder::new(&names).replaces(replaced.clone());
            match self.account.new_order(&order).await {
                // An authority may know nothing of the certificate any more, or have replaced it already
                // (RFC 9773 section 5). Other refusals would be the same again.
                Err(Error::Api(e)) if is_limit(&e) => return Err(Error::Api(e).into()),
                Err(Error::Api(_) | Error::Unsupported(_)) => {}
                other => return Ok(other?),
            }
        }
        Ok(self.account.new_order(&NewOrder::new(&names)).await?)
    }

    /// Has the relay answer for each name that isn't proven, and tells the authority to look.
    async fn prove(&self, order: &mut Order) -> Result<Vec<Shown>, Trouble> {
        let mut answers = Vec::new();
        if order.state().authorizations.len() > self.config.names.len() {
            return Err(Trouble::Order("it wants more proofs than there are names"));
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            if !self.config.names.contains(&name) {
                return Err(Trouble::Order("it wants a proof for another name"));
            }
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(Trouble::Order("a proof of a new order isn't open")),
            }
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let mut challenge = challenge.ok_or_else(|| Trouble::NoChallenge(name.clone()))?;
            let digest = challenge.key_authorization().digest();
            let answer = answer(&name, digest.as_ref())?;
            answers.push(self.store.answer(&name, answer.as_bytes())?);
            match challenge.set_ready().await {
                Err(Error::Api(problem)) => return Err(Trouble::Name { name, problem }),
                other => other?,
            }
        }
        Ok(answers)
    }

    /// Whether a certificate is what was asked for.
    fn check(&self, leaf: &Leaf) -> Result<(), Trouble> {
        let now_s = seconds(SystemTime::now());
        if !leaf.is_for(&self.config.names) {
            let names = leaf.names.join(", ");
            return Err(Trouble::Wrong(format!(
                "the authority sent a certificate for {names}, which wasn't asked for; altnet-acme tries again later"
            )));
        }
        if leaf.not_after_s <= now_s || leaf.not_before_s > now_s + CLOCK_SLACK_S {
            return Err(Trouble::Wrong(
                "the authority sent a certificate that isn't good now; is this machine's clock right?".into(),
            ));
        }
        Ok(())
    }
}

/// What is wrong with an order that the authority gave up, and said this of.
async fn why_invalid(order: &mut Order, said: Option<Problem>) -> Trouble {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            break;
        }
        let mut challenges = authorization.challenges.iter();
        if let Some(problem) = challenges.find_map(|one| one.error.clone()) {
            return Trouble::Name {
                name: authorization.identifier().to_string(),
                problem,
            };
        }
    }
    match said {
        Some(problem) => Error::Api(problem).into(),
        None => Trouble::Order("it was given up, and no name is why"),
    }
}

fn kept_as(config: &Config, credentials: AccountCredentials) -> Kept {
    Kept {
        directory: config.directory.clone(),
        contact: config.contact.clone(),
        credentials,
    }
}

/// What answers for `name`: a key and a certificate that nobody signed, with the digest of the proof in
/// a critical extension.
///
/// Source: RFC 8737 section 3.
fn answer(name: &str, digest: &[u8]) -> Result<Zeroizing<String>, Trouble> {
    let digest: &[u8; 32] = digest
        .try_into()
        .map_err(|_| Trouble::Order("no SHA-256"))?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    Ok(Zeroizing::new(key.serialize_pem() + &certificate.pem()))
}

/// A time in seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use x509_cert::der::Decode as _;
    use x509_cert::ext::pkix::SubjectAltName;

    /// Source: RFC 8737 sections 3 and 6.1: 1.3.6.1.5.5.7.1.31, critical, an OCTET STRING; one name.
    #[test]
    fn an_answer_has_the_digest_and_the_name_and_nothing_else() {
        let digest: Vec<u8> = (0..32).collect();
        let text = answer("relay.example", &digest).unwrap();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        let tbs = x509_cert::Certificate::from_der(&der)
            .unwrap()
            .tbs_certificate;
        let extensions = tbs.extensions.as_ref().unwrap();
        let found = extensions
            .iter()
            .find(|one| one.extn_id.to_string() == "1.3.6.1.5.5.7.1.31");
        let found = found.unwrap();
        assert!(found.critical);
        assert_eq!(
            found.extn_value.as_bytes(),
            [&[4, 32][..], &digest].concat()
        );
        let (_, names) = tbs.get::<SubjectAltName>().unwrap().unwrap();
        assert_eq!(names.0.len(), 1);
        assert_eq!(tbs.issuer, tbs.subject);
        assert!(PrivateKeyDer::from_pem_slice(text.as_bytes()).is_ok());
        assert!(answer("relay.example", &digest[1..]).is_err());
    }
}
