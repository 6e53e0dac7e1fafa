//! The pages: plain HTML that needs no script, but for passkeys, and nothing from elsewhere.
//!
//! Written by hand rather than with a template crate: there are three pages, and what may be
//! written into them unescaped is what the compiler knows as `&'static str`.

use data_encoding::BASE64;
use ring::digest;

use passkey::Offer;

pub mod passkey;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}label{display:block;margin:.5rem 0}\
input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #767676;border-radius:.3rem}\
button,a.button{font:inherit;display:block;width:100%;box-sizing:border-box;margin:.8rem 0;padding:.6rem;border:0;border-radius:.3rem;background:#14508c;color:#fff;text-align:center;text-decoration:none}\
.bad,.good{padding:.6rem;border-radius:.3rem}.bad{background:#fde7e7;color:#7a1212}.good{background:#e5f4e5;color:#174d17}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#191919}input{color:#eee;background:#222}}";

/// The policy that goes with every page (Content Security Policy Level 3): this stylesheet, forms
/// to this page, and nothing else.
pub fn security_policy() -> String {
    let hash = digest::digest(&digest::SHA256, STYLE.as_bytes());
    let hash = BASE64.encode(hash.as_ref());
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
}

/// HTML in the making. What isn't known to the compiler goes through [`Html::text`].
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    fn raw(&mut self, html: &'static str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// Writes a value, for an element's content or a quoted attribute.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if c.is_control() => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    fn form(&mut self, action: &str, token: &str) -> &mut Self {
        self.raw("<form method=\"post\" action=\"").text(action);
        self.raw("\"><input type=\"hidden\" name=\"token\" value=\"")
            .text(token);
        self.raw("\">")
    }
}

/// What somebody is told at the top of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub text: String,
    /// Whether something didn't work.
    pub is_bad: bool,
}

/// A way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// With a code.
    Code,
    /// By a link to elsewhere, or to another port.
    Link {
        /// The directory's name.
        name: String,
        /// Where to.
        to: String,
    },
    /// With a name and a password.
    Password {
        /// The directory's name.
        name: String,
        /// Where the form goes.
        action: String,
        /// Whether the name is an e-mail address.
        is_email: bool,
        /// Whether anybody can be anybody there.
        is_emulated: bool,
    },
    /// With the certificate that the browser has shown.
    Certificate,
}

/// What the page says of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody is logged in.
    LoggedIn {
        /// Who.
        who: String,
        /// In which groups.
        groups: Vec<String>,
        /// For how many more seconds.
        seconds: u64,
        /// What doesn't count.
        not_counted: Vec<String>,
    },
    /// Nobody is.
    Nobody(Vec<Way>),
    /// The device can't be told.
    Unknown,
}

/// The page at `/ca`.
pub fn authority(authority: &crate::api::Authority) -> String {
    let mut html = begun();
    html.raw("<p>").text(&authority.text).raw("</p>");
    html.raw("<a class=\"button\" href=\"/ca.crt\">Certificate (Windows, Android, Linux)</a>");
    html.raw("<a class=\"button\" href=\"/ca.mobileconfig\">Profile (iPhone, iPad, Mac)</a>");
    html.raw("<p>Before you trust it, compare its fingerprint with what whoever runs the network has (<code>altnet tls ca</code>):</p><p><code>");
    html.text(&authority.fingerprint)
        .raw("</code></p></body></html>");
    html.0
}

fn begun() -> Html {
    let mut html = Html::default();
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Network login</title><style>");
    html.raw(STYLE)
        .raw("</style></head><body><h1>Network login</h1>");
    html
}

/// The page at `/`, for somebody who was on the way to `onward`.
pub fn front(
    who: &Who,
    notice: Option<&Notice>,
    token: &str,
    passkeys: Option<&Offer>,
    onward: Option<&str>,
) -> String {
    let mut html = begun();
    if let Some(notice) = notice {
        let class = if notice.is_bad {
            "<p class=\"bad\" role=\"alert\">"
        } else {
            "<p class=\"good\">"
        };
        html.raw(class).text(&capitalized(&notice.text)).raw("</p>");
    }
    match who {
        Who::Unknown => {}
        Who::LoggedIn {
            who,
            groups,
            seconds,
            not_counted,
        } => {
            html.raw("<p>This device is logged in as <strong>")
                .text(who)
                .raw("</strong>");
            if !groups.is_empty() {
                html.raw(" (").text(&groups.join(", ")).raw(")");
            }
            html.raw(", for ")
                .text(&duration(*seconds))
                .raw(" more.</p>");
            if !not_counted.is_empty() {
                html.raw("<p>Not counted here: ")
                    .text(&not_counted.join(", "));
                html.raw(". The network's policy doesn't let this gateway say it.</p>");
            }
            if let Some(onward) = onward {
                html.raw("<a class=\"button\" href=\"").text(onward);
                html.raw("\">Go on to ").text(onward).raw("</a>");
            }
            html.form("/logout", token)
                .raw("<button>Log out</button></form>");
            if let Some(passkeys) = passkeys {
                passkey::offer(&mut html, passkeys, token);
            }
        }
        Who::Nobody(ways) => {
            html.raw("<p>Nobody is logged in on this device.</p>");
            if let Some(passkeys) = passkeys {
                passkey::offer(&mut html, passkeys, token);
            }
            for way in ways {
                offer(&mut html, way, token);
            }
        }
    }
    html.raw("</body></html>");
    html.0
}

fn offer(html: &mut Html, way: &Way, token: &str) {
    match way {
        Way::Link { name, to } => {
            html.raw("<a class=\"button\" href=\"")
                .text(to)
                .raw("\">Log in with ");
            html.text(name).raw("</a>");
        }
        Way::Certificate => {
            html.form("/certificate", token);
            html.raw("<button>Log in with this browser\u{2019}s certificate</button></form>");
        }
        Way::Code => {
            html.raw("<h2>With a code</h2>").form("/code", token);
            html.raw("<label>Code<input name=\"code\" required maxlength=\"64\" autocomplete=\"off\" autocapitalize=\"none\" spellcheck=\"false\"></label><button>Log in</button></form>");
        }
        Way::Password {
            name,
            action,
            is_email,
            is_emulated,
        } => {
            html.raw("<h2>With ").text(name).raw("</h2>");
            if *is_emulated {
                html.raw("<p class=\"bad\">This is an emulator for tests: it lets everybody be anybody.</p>");
            }
            html.form(action, token);
            html.raw(match is_email {
                true => "<label>E-mail<input type=\"email\" name=\"email\" required maxlength=\"256\" autocomplete=\"username\"></label>",
                false => "<label>Name<input name=\"name\" required maxlength=\"256\" autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\"></label>",
            });
            html.raw("<label>Password<input type=\"password\" name=\"password\" required maxlength=\"256\" autocomplete=\"current-password\"></label><button>Log in</button></form>");
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}

fn duration(seconds: u64) -> String {
    let minutes = seconds.div_ceil(60);
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a directory calls somebody, the page has the elements that it has.
        #[test]
        fn no_value_becomes_markup(value in "[<>\"'&=/ a-z\\PC]{0,40}") {
            let page = |value: &str| {
                let who = Who::LoggedIn {
                    who: value.into(),
                    groups: vec![value.into()],
                    seconds: 90,
                    not_counted: vec![value.into()],
                };
                let notice = Notice { text: value.into(), is_bad: true };
                let ways = vec![
                    Way::Link { name: value.into(), to: value.into() },
                    Way::Password { name: value.into(), action: value.into(), is_email: true, is_emulated: true },
                ];
                let listed = passkey::Listed { name: value.into(), about: value.into() };
                let offer = Offer::Add(vec![listed]);
                let page = front(&who, Some(&notice), value, Some(&offer), Some(value));
                page + &front(&Who::Nobody(ways), None, value, Some(&Offer::Use), Some(value))
            };
            let count = |text: &str, c: char| text.chars().filter(|x| *x == c).count();
            let (with, without) = (page(&value), page(""));
            for c in ['<', '>', '"', '\''] {
                prop_assert_eq!(count(&with, c), count(&without, c));
            }
        }
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(duration(1), "1 min");
        assert_eq!(duration(3600), "1 h");
        assert_eq!(duration(43_200 - 61), "11 h 59 min");
    }
}
