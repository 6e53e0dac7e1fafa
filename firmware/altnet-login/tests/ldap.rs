//! The LDAP directory against OpenLDAP's slapd, with a config and a database of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use altnet_login::directory::{Identity, SignInError, Standing};
use altnet_login::ldap::{Directory, Settings};
use servers::{Ca, Issued, Server};
use tempfile::TempDir;

mod servers;

const BASE: &str = "dc=altnet,dc=test";
const SAN: &str = "subjectAltName=IP:127.0.0.1\n";

const PEOPLE: &str = "
dn: dc=altnet,dc=test
objectClass: dcObject
objectClass: organization
o: altnet
dc: altnet

dn: ou=people,dc=altnet,dc=test
objectClass: organizationalUnit
ou: people

dn: cn=gateway,dc=altnet,dc=test
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: gateway
userPassword: gateway's own

dn: uid=alice,ou=people,dc=altnet,dc=test
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
userPassword: wonder land

dn: uid=bob,ou=people,dc=altnet,dc=test
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: builder

dn: uid=star*(name),ou=people,dc=altnet,dc=test
objectClass: inetOrgPerson
uid: star*(name)
cn: Star
sn: A
userPassword: sky

dn: cn=Ops,dc=altnet,dc=test
objectClass: groupOfNames
cn: Ops
member: uid=alice,ou=people,dc=altnet,dc=test
member: uid=bob,ou=people,dc=altnet,dc=test

dn: cn=Staff,dc=altnet,dc=test
objectClass: groupOfNames
cn: Staff
member: uid=alice,ou=people,dc=altnet,dc=test

dn: ou=elsewhere,dc=altnet,dc=test
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://192.0.2.1/dc=elsewhere

dn: cn=policy,dc=altnet,dc=test
objectClass: device
objectClass: pwdPolicy
cn: policy
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxAge: 315360000
pwdMustChange: TRUE
";

struct Slapd {
    folder: TempDir,
    ca: Ca,
    plain: u16,
    tls: u16,
    server: Option<Server>,
}

impl Slapd {
    fn start() -> Slapd {
        Slapd::start_with(|ca| ca.issue("server", "/CN=directory", SAN))
    }

    fn start_with(certificate: impl Fn(&Ca) -> Issued) -> Slapd {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let ca = Ca::new(&at("ca"), "/CN=directory's CA");
        let server = certificate(&ca);
        let unpacked = servers::tools().join("slapd");
        assert!(
            unpacked.exists(),
            "slapd isn't there: run ci/install directories"
        );
        let (unpacked, database) = (unpacked.display(), at("db"));
        let config = format!(
            "include {unpacked}/etc/ldap/schema/core.schema
include {unpacked}/etc/ldap/schema/cosine.schema
include {unpacked}/etc/ldap/schema/inetorgperson.schema
modulepath {unpacked}/usr/lib/ldap
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile {pid}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix {BASE}
rootdn cn=admin,{BASE}
rootpw admin
directory {database}
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=gateway,{BASE} read by * none
overlay memberof
memberof-refint true
overlay ppolicy
ppolicy_default cn=policy,{BASE}
ppolicy_use_lockout
",
            pid = at("pid").display(),
            certificate = server.certificate.display(),
            key = server.key.display(),
            database = database.display(),
        );
        fs::create_dir(&database).unwrap();
        fs::write(at("slapd.conf"), config).unwrap();
        let password = at("password");
        fs::write(&password, "gateway's own\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let [plain, tls] = servers::free_ports();
        let mut slapd = Slapd {
            folder,
            ca,
            plain,
            tls,
            server: None,
        };
        slapd.up();
        slapd.change("ldapadd", PEOPLE);
        slapd
    }

    fn up(&mut self) {
        let unpacked = servers::tools().join("slapd");
        let libraries: Vec<_> = fs::read_dir(unpacked.join("usr/lib"))
            .unwrap()
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect();
        let mut command = Command::new(unpacked.join("usr/sbin/slapd"));
        command
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .args(["-d", "0", "-f"])
            .arg(self.folder.path().join("slapd.conf"))
            .arg("-h")
            .arg(format!(
                "ldap://127.0.0.1:{} ldaps://127.0.0.1:{}",
                self.plain, self.tls
            ));
        let log = self.folder.path().join("slapd.log");
        self.server = Some(Server::start(command, &log, &[self.plain, self.tls]));
    }

    fn down(&mut self) {
        self.server = None;
    }

    /// Changes the directory by LDIF, as its administrator.
    fn change(&self, tool: &str, ldif: &str) {
        let file = self.folder.path().join("change.ldif");
        fs::write(&file, ldif).unwrap();
        servers::run(
            Command::new(tool)
                .args(["-x", "-e", "relax", "-w", "admin", "-D"])
                .arg(format!("cn=admin,{BASE}"))
                .arg("-H")
                .arg(format!("ldap://127.0.0.1:{}", self.plain))
                .arg("-f")
                .arg(&file),
        );
    }

    fn modify(&self, uid: &str, lines: &str) {
        let ldif = format!("dn: uid={uid},ou=people,{BASE}\nchangetype: modify\n{lines}\n");
        self.change("ldapmodify", &ldif);
    }

    fn ldaps(&self) -> String {
        format!("url = 'ldaps://127.0.0.1:{}'\n", self.tls)
    }

    fn start_tls(&self) -> String {
        format!(
            "url = 'ldap://127.0.0.1:{}'\nstart_tls = true\n",
            self.plain
        )
    }

    fn directory(&self, lines: &str) -> Directory {
        self.directory_by(&self.ca.own().certificate, lines)
    }

    fn directory_by(&self, ca: &Path, lines: &str) -> Directory {
        let text = format!(
            "ca_file = '{}'\nbase = '{BASE}'\nbind_dn = 'cn=gateway,{BASE}'\n\
             bind_password_file = '{}'\n{lines}",
            ca.display(),
            self.folder.path().join("password").display(),
        );
        Directory::new(&toml::from_str::<Settings>(&text).unwrap()).unwrap()
    }
}

fn groups(identity: &Identity) -> Vec<&str> {
    identity.groups.iter().map(String::as_str).collect()
}

fn unreachable(result: Result<Identity, SignInError>, reason: &str) {
    match result {
        Err(SignInError::Unreachable(what)) if what.contains(reason) => {}
        other => panic!("{other:?} isn't unreachable for {reason:?}"),
    }
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn who_knows_the_password_gets_in_and_nobody_else() {
    let slapd = Slapd::start();
    for url in [slapd.ldaps(), slapd.start_tls()] {
        let directory = slapd.directory(&url);
        let alice = directory.sign_in("alice", "wonder land").await.unwrap();
        assert_eq!(alice.subject, format!("uid=alice,ou=people,{BASE}"));
        assert_eq!(alice.name, "alice");
        assert_eq!(
            groups(&alice),
            ["cn=Ops,dc=altnet,dc=test", "cn=Staff,dc=altnet,dc=test"]
        );
        for (name, password) in [
            ("alice", "wonder"),
            ("alice", ""),
            ("nobody", "wonder land"),
            ("", "wonder land"),
            // Filters, wildcards and DNs that somebody types are names that nobody has.
            ("*", "wonder land"),
            ("a*", "wonder land"),
            ("alice)(uid=*", "wonder land"),
            (")(uid=*", "wonder land"),
            ("alice)(|(uid=*", "wonder land"),
            ("\\61lice", "wonder land"),
            ("alice\0", "wonder land"),
            ("uid=alice,ou=people,dc=altnet,dc=test", "wonder land"),
        ] {
            let refused = directory.sign_in(name, password).await.unwrap_err();
            assert_eq!(refused, SignInError::Wrong, "{name:?} {password:?}");
        }
        // A name that looks like a filter is a name nevertheless.
        let star = directory.sign_in("star*(name)", "sky").await.unwrap();
        assert_eq!(star.name, "star*(name)");
    }
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_filter_that_finds_two_finds_nobody() {
    let slapd = Slapd::start();
    // Alice and Star share a surname.
    let directory = slapd.directory(&format!("{}user_filter = '(sn={{}})'\n", slapd.ldaps()));
    for password in ["wonder land", "sky"] {
        let refused = directory.sign_in("A", password).await.unwrap_err();
        assert_eq!(refused, SignInError::Wrong);
    }
    assert_eq!(directory.sign_in("B", "builder").await.unwrap().name, "bob");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_server_of_another_ca_gets_no_password() {
    let slapd = Slapd::start();
    let other = Ca::new(&slapd.folder.path().join("other"), "/CN=directory's CA");
    for url in [slapd.ldaps(), slapd.start_tls()] {
        let directory = slapd.directory_by(&other.own().certificate, &url);
        let refused = directory.sign_in("alice", "wonder land").await;
        unreachable(refused, "invalid peer certificate");
    }
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_server_whose_certificate_ran_out_or_names_another_gets_no_password() {
    let slapd = Slapd::start_with(|ca| ca.issue_expired("server", "/CN=directory", SAN));
    for url in [slapd.ldaps(), slapd.start_tls()] {
        let directory = slapd.directory(&url);
        let refused = directory.sign_in("alice", "wonder land").await;
        unreachable(refused, "certificate expired");
    }
    let elsewhere = "subjectAltName=IP:127.0.0.2\n";
    let slapd = Slapd::start_with(|ca| ca.issue("server", "/CN=directory", elsewhere));
    let directory = slapd.directory(&slapd.ldaps());
    let refused = directory.sign_in("alice", "wonder land").await;
    unreachable(refused, "not valid for name");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn who_leaves_a_group_or_the_directory_is_seen_to_leave() {
    let slapd = Slapd::start();
    let directory = slapd.directory(&slapd.ldaps());
    let alice = directory.sign_in("alice", "wonder land").await.unwrap();
    slapd.change(
        "ldapmodify",
        &format!(
            "dn: cn=Ops,{BASE}\nchangetype: modify\ndelete: member\n\
             member: uid=alice,ou=people,{BASE}\n"
        ),
    );
    let Standing::Holds(alice) = directory.look_again(&alice).await else {
        panic!("alice is still there");
    };
    assert_eq!(groups(&alice), ["cn=Staff,dc=altnet,dc=test"]);
    slapd.change(
        "ldapmodify",
        &format!("dn: uid=alice,ou=people,{BASE}\nchangetype: delete\n"),
    );
    let standing = directory.look_again(&alice).await;
    assert!(
        matches!(standing, Standing::Ended(SignInError::Revoked)),
        "{standing:?}"
    );
    let refused = directory.sign_in("alice", "wonder land").await;
    assert_eq!(refused.unwrap_err(), SignInError::Wrong);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn who_is_switched_off_is_out() {
    let slapd = Slapd::start();
    let disabled = "disabled_filter = '(employeeType=left)'\n";
    let directory = slapd.directory(&format!("{}{disabled}", slapd.start_tls()));
    let bob = directory.sign_in("bob", "builder").await.unwrap();
    slapd.modify("bob", "add: employeeType\nemployeeType: left");
    let standing = directory.look_again(&bob).await;
    assert!(
        matches!(standing, Standing::Ended(SignInError::Revoked)),
        "{standing:?}"
    );
    let refused = directory.sign_in("bob", "builder").await;
    assert_eq!(refused.unwrap_err(), SignInError::Revoked);
    // Who doesn't know the password doesn't learn it.
    let refused = directory.sign_in("bob", "guess").await;
    assert_eq!(refused.unwrap_err(), SignInError::Wrong);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn the_password_policy_says_locked_and_expired() {
    let slapd = Slapd::start();
    let directory = slapd.directory(&slapd.ldaps());
    let locked = "add: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z";
    slapd.modify("bob", locked);
    let refused = directory.sign_in("bob", "builder").await;
    assert_eq!(refused.unwrap_err(), SignInError::Revoked);
    slapd.modify("bob", "delete: pwdAccountLockedTime");
    assert!(directory.sign_in("bob", "builder").await.is_ok());
    let old = "replace: pwdChangedTime\npwdChangedTime: 20000101000000Z";
    slapd.modify("bob", old);
    let refused = directory.sign_in("bob", "builder").await;
    assert_eq!(refused.unwrap_err(), SignInError::Expired);
    slapd.modify("alice", "add: pwdReset\npwdReset: TRUE");
    let refused = directory.sign_in("alice", "wonder land").await;
    assert_eq!(refused.unwrap_err(), SignInError::Expired);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn groups_that_list_their_members_count() {
    let slapd = Slapd::start();
    let lines = format!(
        "{}group_attribute = 'employeeType'\ngroup_base = '{BASE}'\n",
        slapd.ldaps()
    );
    let directory = slapd.directory(&lines);
    slapd.modify("bob", "add: employeeType\nemployeeType: Night Shift");
    let bob = directory.sign_in("bob", "builder").await.unwrap();
    assert_eq!(groups(&bob), ["Night Shift", "cn=Ops,dc=altnet,dc=test"]);
    slapd.change(
        "ldapmodify",
        &format!(
            "dn: cn=Ops,{BASE}\nchangetype: modify\ndelete: member\n\
             member: uid=bob,ou=people,{BASE}\n"
        ),
    );
    let Standing::Holds(bob) = directory.look_again(&bob).await else {
        panic!("bob is still there");
    };
    assert_eq!(groups(&bob), ["Night Shift"]);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_directory_that_is_down_is_unreachable_until_it_is_up() {
    let mut slapd = Slapd::start();
    let directory = slapd.directory(&slapd.ldaps());
    let alice = directory.sign_in("alice", "wonder land").await.unwrap();
    slapd.down();
    unreachable(directory.sign_in("alice", "wonder land").await, "refused");
    unreachable(directory.sign_in("alice", "wrong").await, "refused");
    let standing = directory.look_again(&alice).await;
    assert!(matches!(standing, Standing::Unreachable(_)), "{standing:?}");
    slapd.up();
    assert!(directory.sign_in("alice", "wonder land").await.is_ok());
    let standing = directory.look_again(&alice).await;
    assert!(matches!(standing, Standing::Holds(_)), "{standing:?}");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_gateway_that_may_not_search_blames_nobody() {
    let slapd = Slapd::start();
    let directory = slapd.directory(&slapd.ldaps());
    let alice = directory.sign_in("alice", "wonder land").await.unwrap();
    slapd.change(
        "ldapmodify",
        &format!(
            "dn: cn=gateway,{BASE}\nchangetype: modify\nreplace: userPassword\nuserPassword: x\n"
        ),
    );
    let refused = directory.sign_in("alice", "wonder land").await;
    unreachable(refused, "gateway's own bind");
    let standing = directory.look_again(&alice).await;
    assert!(matches!(standing, Standing::Unreachable(_)), "{standing:?}");
}
