//! Login codes: what an administrator gives to somebody whom no directory knows.
//!
//! A code has 75 random bits and is shown once. What is kept is its PBKDF2 sum; that takes as long
//! for one code as for all of them, because the salt is the file's. The command line and the
//! running page may write at the same time: each change is made under a lock, on what the medium
//! holds then, and is on the medium before anybody is let in.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ring::pbkdf2;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::directory::{Identity, SignInError, Standing};
use crate::state::{self, State, StateError};

const KIND: &str = "codes";
/// The most codes at a time.
pub const MAX_CODES: usize = 256;
/// The most devices that may use one code.
pub const MAX_USES: u32 = 1000;
/// Douglas Crockford's base32: no i, l, o or u, and those are read as what they look like.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SYMBOLS: usize = 15;
const GROUP: usize = 5;
/// The code is random: this is to make guessing slow, not to save a weak one.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SUM_BYTES: usize = 32;

/// A code, as its file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Code {
    /// What it is called in lists.
    pub id: String,
    /// The person that its devices count as.
    pub person: Option<String>,
    /// The groups that they count in.
    pub groups: Vec<String>,
    /// How many devices may use it.
    pub uses: u32,
    /// The devices that did.
    pub used_by: BTreeSet<String>,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// When it ends.
    pub ends: u64,
    sum: String,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    salt: String,
    codes: Vec<Code>,
}

/// What a code is to be good for.
#[derive(Clone, Debug)]
pub struct Order {
    /// The person that its devices count as.
    pub person: Option<String>,
    /// The groups that they count in.
    pub groups: Vec<String>,
    /// How many devices may use it.
    pub uses: u32,
    /// For how long.
    pub lasts: Duration,
}

/// Why a code could not be made or taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// There are as many as can be.
    #[error("there are {MAX_CODES} codes already; revoke some with `altnet-login code revoke`")]
    Full,
    /// There is no such code.
    #[error("there is no code {0:?}; `altnet-login code list` shows them")]
    NoSuchCode(String),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The codes in a state directory.
#[derive(Clone, Debug)]
pub struct Codes {
    state: State,
}

impl Codes {
    /// Those in `state`.
    pub fn new(state: State) -> Self {
        Self { state }
    }

    /// Makes a code. Returns it, to be shown once, and how it is kept.
    ///
    /// # Errors
    /// [`CodeError`].
    pub fn create(&self, order: Order) -> Result<(Zeroizing<String>, Code), CodeError> {
        let _lock = self.state.lock(KIND)?;
        let mut file = self.load()?;
        let now = state::now();
        file.codes.retain(|code| code.ends > now);
        if file.codes.len() >= MAX_CODES {
            return Err(CodeError::Full);
        }
        if file.salt.is_empty() {
            file.salt = HEXLOWER.encode(&*random::<16>()?);
        }
        let random = random::<SYMBOLS>()?;
        let symbols: Zeroizing<Vec<u8>> = Zeroizing::new(
            random
                .iter()
                .map(|b| ALPHABET[usize::from(b & 31)])
                .collect(),
        );
        let code = Code {
            id: HEXLOWER.encode(&*self::random::<4>()?),
            person: order.person,
            groups: order.groups,
            uses: order.uses,
            used_by: BTreeSet::new(),
            made: now,
            ends: now.saturating_add(order.lasts.as_secs()),
            sum: HEXLOWER.encode(&sum(&file.salt, &symbols)),
        };
        file.codes.push(code.clone());
        self.state.save(KIND, &file)?;
        let mut shown = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
        for (i, symbol) in symbols.iter().enumerate() {
            if i > 0 && i % GROUP == 0 {
                shown.push('-');
            }
            shown.push(char::from(*symbol));
        }
        Ok((shown, code))
    }

    /// Those that haven't ended.
    ///
    /// # Errors
    /// [`CodeError::State`].
    pub fn list(&self) -> Result<Vec<Code>, CodeError> {
        let _lock = self.state.lock(KIND)?;
        let mut codes = self.load()?.codes;
        codes.retain(|code| code.ends > state::now());
        Ok(codes)
    }

    /// Takes one back; who logged in with it is out within a minute.
    ///
    /// # Errors
    /// [`CodeError::NoSuchCode`], [`CodeError::State`].
    pub fn revoke(&self, id: &str) -> Result<(), CodeError> {
        let _lock = self.state.lock(KIND)?;
        let mut file = self.load()?;
        let before = file.codes.len();
        file.codes.retain(|code| code.id != id);
        if file.codes.len() == before {
            return Err(CodeError::NoSuchCode(id.into()));
        }
        Ok(self.state.save(KIND, &file)?)
    }

    /// Lets `device` use the code that was `typed`. A device that used it before doesn't use it
    /// up again.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn redeem(&self, typed: &str, device: &str) -> Result<Code, SignInError> {
        let symbols = normalize(typed).ok_or(SignInError::Wrong)?;
        let _lock = self.state.lock(KIND).map_err(|e| unusable(&e))?;
        let mut file = self.load().map_err(|e| unusable(&e))?;
        let sum = HEXLOWER.encode(&sum(&file.salt, &symbols));
        // All of them, so that the time doesn't say which.
        let is_it = |code: &Code| bool::from(code.sum.as_bytes().ct_eq(sum.as_bytes()));
        let found = file
            .codes
            .iter()
            .fold(None, |found, code| match is_it(code) {
                true => Some(code.id.clone()),
                false => found,
            });
        let id = found.ok_or(SignInError::Wrong)?;
        self.admit(&mut file, &id, device)
    }

    /// Lets `device` use a code by a passkey that came from it, which counts as when the code is
    /// typed: a code is for so many devices.
    ///
    /// # Errors
    /// [`SignInError`].
    pub fn come_back(&self, id: &str, device: &str) -> Result<Code, SignInError> {
        let _lock = self.state.lock(KIND).map_err(|e| unusable(&e))?;
        let mut file = self.load().map_err(|e| unusable(&e))?;
        self.admit(&mut file, id, device)
    }

    fn admit(&self, file: &mut File, id: &str, device: &str) -> Result<Code, SignInError> {
        let code = file.codes.iter_mut().find(|code| code.id == id);
        let code = code.ok_or(SignInError::Revoked)?;
        if code.ends <= state::now() {
            return Err(SignInError::Expired);
        }
        if code.used_by.contains(device) {
            return Ok(code.clone());
        }
        if code.used_by.len() >= usize::try_from(code.uses).unwrap_or(usize::MAX) {
            return Err(SignInError::Expired);
        }
        code.used_by.insert(device.to_owned());
        let code = code.clone();
        self.state.save(KIND, file).map_err(|e| unusable(&e))?;
        Ok(code)
    }

    /// Whether a code still holds.
    pub fn look_again(&self, id: &str) -> Standing {
        let codes = self.state.lock(KIND).and_then(|_lock| self.load_file());
        let codes = match codes {
            Ok(file) => file.codes,
            Err(e) => return Standing::Unreachable(e.to_string()),
        };
        match codes.iter().find(|code| code.id == id) {
            None => Standing::Ended(SignInError::Revoked),
            Some(code) if code.ends <= state::now() => Standing::Ended(SignInError::Expired),
            Some(code) => Standing::Holds(code.identity()),
        }
    }

    fn load(&self) -> Result<File, CodeError> {
        Ok(self.load_file()?)
    }

    fn load_file(&self) -> Result<File, StateError> {
        Ok(self.state.load(KIND)?.unwrap_or_default())
    }
}

impl Code {
    /// Who uses it, as a directory would say it.
    pub fn identity(&self) -> Identity {
        Identity {
            subject: self.id.clone(),
            name: self.person.clone().unwrap_or_default(),
            groups: self.groups.iter().cloned().collect(),
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(self.ends)),
            handle: Zeroizing::default(),
        }
    }
}

fn unusable(e: &dyn std::fmt::Display) -> SignInError {
    crate::error!("codes can't be checked: {e}");
    SignInError::Unreachable("this gateway's list of codes".into())
}

/// The symbols of what somebody typed; nothing if it can't be a code.
pub fn normalize(typed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut symbols = Zeroizing::new(Vec::with_capacity(SYMBOLS));
    for c in typed.chars() {
        let symbol = match c.to_ascii_lowercase() {
            '-' | ' ' => continue,
            'o' => b'0',
            'i' | 'l' => b'1',
            c => u8::try_from(c).ok().filter(|b| ALPHABET.contains(b))?,
        };
        if symbols.len() == SYMBOLS {
            return None;
        }
        symbols.push(symbol);
    }
    (symbols.len() == SYMBOLS).then_some(symbols)
}

fn sum(salt: &str, symbols: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = [0; SUM_BYTES];
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::derive(algorithm, ROUNDS, salt.as_bytes(), symbols, &mut sum);
    sum
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, CodeError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|_| CodeError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(uses: u32) -> Order {
        Order {
            person: Some("ann".into()),
            groups: vec!["guests".into()],
            uses,
            lasts: Duration::from_secs(3600),
        }
    }

    fn codes() -> (tempfile::TempDir, Codes) {
        let home = tempfile::tempdir().unwrap();
        let codes = Codes::new(State::open(home.path()).unwrap());
        (home, codes)
    }

    #[test]
    fn a_code_is_good_for_so_many_devices() {
        let (_home, codes) = codes();
        let (shown, made) = codes.create(order(2)).unwrap();
        assert_eq!(shown.len(), 17);
        for device in ["aa", "bb", "aa"] {
            assert_eq!(codes.redeem(&shown, device).unwrap().id, made.id);
        }
        assert_eq!(
            codes.redeem(&shown, "cc").unwrap_err(),
            SignInError::Expired
        );
        assert_eq!(codes.list().unwrap()[0].used_by.len(), 2);
    }

    #[test]
    fn who_comes_back_is_one_of_so_many_devices() {
        let (_home, codes) = codes();
        let (shown, made) = codes.create(order(2)).unwrap();
        codes.redeem(&shown, "aa").unwrap();
        for device in ["aa", "bb", "bb"] {
            assert_eq!(codes.come_back(&made.id, device).unwrap().id, made.id);
        }
        let refused = codes.come_back(&made.id, "cc");
        assert_eq!(refused.unwrap_err(), SignInError::Expired);
        codes.revoke(&made.id).unwrap();
        let refused = codes.come_back(&made.id, "aa");
        assert_eq!(refused.unwrap_err(), SignInError::Revoked);
    }

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let (_home, codes) = codes();
        let (shown, _) = codes.create(order(1)).unwrap();
        let spoken = shown
            .to_uppercase()
            .replace('0', "O")
            .replace('1', "l")
            .replace('-', " ");
        assert!(codes.redeem(&spoken, "aa").is_ok());
        for wrong in [
            "",
            "00000-00000-00000",
            "uuuuu-uuuuu-uuuuu",
            &format!("{}x", *shown),
        ] {
            assert_eq!(codes.redeem(wrong, "aa").unwrap_err(), SignInError::Wrong);
        }
    }

    #[test]
    fn what_was_revoked_ends() {
        let (home, codes) = codes();
        let (shown, made) = codes.create(order(1)).unwrap();
        assert!(matches!(codes.look_again(&made.id), Standing::Holds(_)));
        codes.revoke(&made.id).unwrap();
        assert!(matches!(codes.look_again(&made.id), Standing::Ended(_)));
        assert_eq!(codes.redeem(&shown, "aa").unwrap_err(), SignInError::Wrong);
        assert!(matches!(
            codes.revoke(&made.id),
            Err(CodeError::NoSuchCode(_))
        ));
        let kept = std::fs::read_to_string(home.path().join("codes.state")).unwrap();
        assert!(!kept.contains(&*shown));
    }

    #[test]
    fn a_code_ends() {
        let (_home, codes) = codes();
        let mut order = order(1);
        order.lasts = Duration::ZERO;
        let (shown, made) = codes.create(order).unwrap();
        assert_eq!(
            codes.redeem(&shown, "aa").unwrap_err(),
            SignInError::Expired
        );
        assert!(matches!(
            codes.look_again(&made.id),
            Standing::Ended(SignInError::Expired)
        ));
    }

    #[test]
    fn two_writers_lose_nothing() {
        let (_home, codes) = codes();
        let (shown, _) = codes.create(order(40)).unwrap();
        std::thread::scope(|scope| {
            for half in 0..2 {
                let (codes, shown) = (&codes, &shown);
                scope.spawn(move || {
                    for n in 0..10 {
                        codes.redeem(shown, &format!("{half}-{n}")).unwrap();
                        codes.create(order(1)).unwrap();
                    }
                });
            }
        });
        let all = codes.list().unwrap();
        assert_eq!(all.len(), 21);
        assert_eq!(all.iter().map(|code| code.used_by.len()).max(), Some(20));
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = normalize(&text);
        }
    }
}
