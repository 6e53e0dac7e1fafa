//! The page over TLS, and a login with a client's certificate of an openssl CA, by curl.

mod common;
mod servers;

use std::path::PathBuf;
use std::process::Command;

use common::{Browser, House, Page};
use servers::{Ca, Issued};

const CLIENT: &str = "extendedKeyUsage=clientAuth\n";

struct Scene {
    house: House,
    page: Page,
    ca: Ca,
    own: Ca,
    crl: PathBuf,
}

fn scene() -> Scene {
    let house = House::new();
    let ca = Ca::new(&house.path("ca"), "/O=altnet/CN=people's CA");
    let own = Ca::new(&house.path("own"), "/CN=gateway");
    let server = own.issue("gateway", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1\n");
    let key = house.write("key.pem", std::fs::read(&server.key).unwrap());
    let crl = house.path("people.crl");
    ca.write_crl(&crl, &[]);
    let (certificate, authority) = (&server.certificate, ca.own().certificate);
    house.configure(
        "url = \"https://127.0.0.1\"",
        &format!(
            "[tls]\nlisten = [\"127.0.0.1:0\"]\nclient_certificates = [\"127.0.0.1:0\"]\ncertificate = {certificate:?}\nkey = {key:?}\n[[pki]]\nname = \"Our CA\"\nperson = \"name\"\ngroups = {{ staff = \"team\" }}\n[pki.authority]\nca_file = {authority:?}\ngroup_from = \"ou\"\nocsp = \"off\"\ncrl = [{crl:?}]\n"
        ),
    );
    let page = house.serve();
    Scene {
        house,
        page,
        ca,
        own,
        crl,
    }
}

impl Scene {
    /// What the page at `path` of the listener that asks for certificates says: status and body.
    fn curl(&self, path: &str, who: Option<&Issued>, data: Option<&str>) -> (String, String) {
        let jar = self.house.path("cookies");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--interface", "127.0.0.2", "-w", "\n%{http_code}"]);
        curl.arg("--cacert").arg(&self.own.own().certificate);
        curl.arg("-b").arg(&jar).arg("-c").arg(&jar);
        if let Some(who) = who {
            curl.arg("--cert")
                .arg(&who.certificate)
                .arg("--key")
                .arg(&who.key);
        }
        if let Some(data) = data {
            curl.args(["--data-urlencode", data]);
        }
        let url = format!("https://{}{path}", self.page.addresses[2]);
        let said = curl.arg(url).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.into(), body.into())
    }

    fn log_in(&self, who: &Issued) -> (String, String) {
        let (_, front) = self.curl("/certificate", Some(who), None);
        let token = front.split("name=\"token\" value=\"").nth(1).unwrap();
        let token = token.split('"').next().unwrap();
        self.curl("/certificate", Some(who), Some(&format!("token={token}")))
    }
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_certificate_logs_in_until_it_is_revoked() {
    let scene = scene();
    let alice = scene.ca.issue("alice", "/OU=staff/CN=alice", CLIENT);
    let (_, front) = scene.curl("/certificate", Some(&alice), None);
    assert!(front.contains("browser\u{2019}s certificate"), "{front}");
    let (status, body) = scene.log_in(&alice);
    assert_eq!(status, "303", "{body}");
    let login = scene.house.altnetd.login();
    assert_eq!(
        (&login["person"], &login["groups"][0]),
        (&"alice".into(), &"team".into())
    );
    assert_eq!(login["how"], "pki Our CA");
    scene.ca.revoke(&alice);
    scene.ca.write_crl(&scene.crl, &[]);
    scene.house.altnetd.wait_for_logout();
    let (status, body) = scene.log_in(&alice);
    assert_eq!(status, "403");
    assert!(body.contains("revoked"), "{body}");
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_certificate_of_another_ca_or_none_lets_nobody_in() {
    let scene = scene();
    let other = Ca::new(&scene.house.path("other"), "/O=altnet/CN=people's CA");
    let eve = other.issue("eve", "/OU=staff/CN=alice", CLIENT);
    assert_eq!(scene.log_in(&eve).0, "403");
    let (status, front) = scene.curl("/certificate", None, None);
    assert_eq!(status, "200");
    // Without one the page links to where one is asked for.
    assert!(front.contains("Log in with a certificate"), "{front}");
    assert!(scene.house.altnetd.with(|told| told.calls.is_empty()));
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn plain_http_is_sent_to_https_and_takes_no_form() {
    let scene = scene();
    let mut browser = Browser::new("127.0.0.2");
    let front = browser.front(&scene.page);
    assert_eq!(
        (front.status, front.header("location")),
        (303, Some("https://127.0.0.1"))
    );
    let url = format!("http://{}/code", scene.page.addresses[0]);
    assert_eq!(
        browser.post(&url, &[("code", "00000-00000-00000")]).status,
        403
    );
}
