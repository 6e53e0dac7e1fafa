//! `altnet tls`: the authority that makes browsers trust this network's names.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::Session;
use crate::api::Method;
use crate::api::tls::Authority;

#[derive(Debug, Subcommand)]
pub(super) enum TlsCommand {
    /// The network's authority: its fingerprint, and the certificate that devices are to trust.
    Ca {
        /// Write the certificate to this file; nothing may be there yet. With a name that ends in
        /// .mobileconfig, as a profile for iOS and macOS.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// How each system is told to trust it.
    Trust,
}

pub(super) async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &TlsCommand,
) -> anyhow::Result<()> {
    match command {
        TlsCommand::Ca { output: None } => {
            session
                .show(Method::TlsCa, json!({}), |a: &Authority| {
                    format!("{}\n{}", shown(a), a.pem)
                })
                .await
        }
        TlsCommand::Ca {
            output: Some(output),
        } => {
            let mut written = Ok(());
            let said = session.show(Method::TlsCa, json!({}), |authority: &Authority| {
                written = write(output, authority);
                match &written {
                    Ok(()) => format!("{}\nIt is in {}.\n", shown(authority), output.display()),
                    Err(_) => String::new(),
                }
            });
            said.await?;
            written
        }
        TlsCommand::Trust => session.show(Method::TlsCa, json!({}), trust).await,
    }
}

fn write(path: &Path, authority: &Authority) -> anyhow::Result<()> {
    let is_profile = path.extension().is_some_and(|end| end == "mobileconfig");
    let text = match is_profile {
        true => &authority.mobileconfig,
        false => &authority.pem,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .with_context(|| format!("can't make {}; choose another name", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}

fn shown(authority: &Authority) -> String {
    format!(
        "The authority for TLS of {}, until {}\nSHA-256 {}\n{}\n",
        authority.network, authority.until, authority.fingerprint, authority.text
    )
}

fn trust(authority: &Authority) -> String {
    format!(
        "{}
Bring the certificate to each device (`altnet tls ca --output ca.pem` writes it) and compare the
fingerprint there.

Debian, Ubuntu   sudo cp ca.pem /usr/local/share/ca-certificates/altnet-{network}.crt
                 sudo update-ca-certificates
Fedora, RHEL     sudo trust anchor ca.pem
Chromium, Linux  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n altnet-{network} -i ca.pem
Firefox          Settings, Privacy & Security, View Certificates, Authorities, Import: websites
macOS            sudo security add-trusted-cert -d -k /Library/Keychains/System.keychain ca.pem
iOS, iPadOS      altnet tls ca --output {network}.mobileconfig, open it there, Install; then Settings,
                 General, About, Certificate Trust Settings: switch it on
Android          Settings, Security, Encryption & credentials, Install a certificate, CA certificate
Windows          certutil -addstore -f Root ca.pem        (as administrator)
",
        shown(authority),
        network = authority.network
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::time::UnixTime;

    #[test]
    fn a_file_is_written_once_and_as_its_name_says() {
        let dir = tempfile::tempdir().unwrap();
        let until = UnixTime::from_secs(2_000_000_000);
        let authority = Authority::of("home", &"a".repeat(52), &[1, 2, 3], until);
        let pem = dir.path().join("ca.pem");
        write(&pem, &authority).unwrap();
        assert_eq!(std::fs::read_to_string(&pem).unwrap(), authority.pem);
        assert!(write(&pem, &authority).is_err());
        let profile = dir.path().join("home.mobileconfig");
        write(&profile, &authority).unwrap();
        assert!(
            std::fs::read_to_string(&profile)
                .unwrap()
                .starts_with("<?xml")
        );
        assert!(trust(&authority).contains("altnet-home.crt"));
    }
}
