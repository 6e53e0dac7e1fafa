//! Calls of a service, and its answers.
//!
//! Arguments stand in the order the service's own description has them: some devices read by
//! order alone.
//!
//! Source: UPnP Device Architecture 1.1 section 3, WANIPConnection:1 section 2.4 and :2 section 2.5.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::description::Kind;
use super::xml::{self, BadXml};

/// What a person reads in the router's list of open ports.
pub const DESCRIPTION: &str = "altnet";

/// A call. Mappings are of UDP and for any remote host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What is the address outside?
    GetExternalIpAddress,
    /// This external port.
    AddPortMapping(Mapping),
    /// This external port, or another.
    AddAnyPortMapping(Mapping),
    /// No longer this external port.
    DeletePortMapping {
        /// Which.
        external_port: u16,
    },
}

/// A mapping as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The router's port.
    pub external_port: u16,
    /// Where it leads.
    pub internal: SocketAddrV4,
    /// For how long, in seconds; 0 until it is deleted.
    pub lease_s: u32,
}

/// What a service answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The address outside, if it says one.
    pub external: Option<Ipv4Addr>,
    /// The port that was given, if it says one.
    pub reserved_port: Option<u16>,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The device refused, with a number of UPnP's.
    #[error("the device refused with error {0}")]
    Fault(u16),
    /// The device refused without a word.
    #[error("the device answered with HTTP status {0}")]
    Status(u16),
    /// The answer can't be read.
    #[error(transparent)]
    Unreadable(#[from] BadXml),
}

impl Action {
    /// The call's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetExternalIpAddress => "GetExternalIPAddress",
            Self::AddPortMapping(_) => "AddPortMapping",
            Self::AddAnyPortMapping(_) => "AddAnyPortMapping",
            Self::DeletePortMapping { .. } => "DeletePortMapping",
        }
    }

    /// What the request's field SOAPAction says.
    pub fn header(&self, kind: Kind) -> String {
        format!("\"{}#{}\"", kind.urn(), self.name())
    }

    /// The request's body.
    pub fn body(&self, kind: Kind) -> String {
        let (name, urn) = (self.name(), kind.urn());
        let arguments: String = self
            .arguments()
            .iter()
            .map(|(name, value)| format!("<{name}>{}</{name}>", xml::escaped(value)))
            .collect();
        format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{urn}\">{arguments}</u:{name}></s:Body></s:Envelope>\r\n"
        )
    }

    fn arguments(&self) -> Vec<(&'static str, String)> {
        let which = |port: &u16| {
            vec![
                ("NewRemoteHost", String::new()),
                ("NewExternalPort", port.to_string()),
                // Some devices take nothing but capitals.
                ("NewProtocol", "UDP".to_owned()),
            ]
        };
        match self {
            Self::GetExternalIpAddress => Vec::new(),
            Self::DeletePortMapping { external_port } => which(external_port),
            Self::AddPortMapping(mapping) | Self::AddAnyPortMapping(mapping) => {
                let mut arguments = which(&mapping.external_port);
                arguments.extend([
                    ("NewInternalPort", mapping.internal.port().to_string()),
                    ("NewInternalClient", mapping.internal.ip().to_string()),
                    ("NewEnabled", "1".to_owned()),
                    ("NewPortMappingDescription", DESCRIPTION.to_owned()),
                    ("NewLeaseDuration", mapping.lease_s.to_string()),
                ]);
                arguments
            }
        }
    }
}

/// Reads an answer that came with this HTTP status.
///
/// # Errors
/// [`CallError`].
pub fn parse(status: u16, body: &str) -> Result<Answer, CallError> {
    let mut answer = Answer::default();
    let mut fault = None;
    let mut is_answer = false;
    let read = xml::each_element(body, |path, text| match path {
        [.., "Fault", "detail", "UPnPError", "errorCode"] => fault = text.parse().ok(),
        [_, "Body", _, "NewExternalIPAddress"] => answer.external = text.parse().ok(),
        [_, "Body", _, "NewReservedPort"] => answer.reserved_port = text.parse().ok(),
        [_, "Body"] => is_answer = true,
        _ => {}
    });
    match (fault, status) {
        (Some(code), _) => Err(CallError::Fault(code)),
        (None, 200) => {
            read?;
            if is_answer {
                Ok(answer)
            } else {
                Err(BadXml.into())
            }
        }
        (None, status) => Err(CallError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping() -> Mapping {
        Mapping {
            external_port: 4660,
            internal: "192.168.1.2:51820".parse().unwrap(),
            lease_s: 7200,
        }
    }

    #[test]
    fn a_call_keeps_its_exact_bytes() {
        let body = Action::AddPortMapping(mapping()).body(Kind::WanIp1);
        let expected = "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"><NewRemoteHost></NewRemoteHost><NewExternalPort>4660</NewExternalPort><NewProtocol>UDP</NewProtocol><NewInternalPort>51820</NewInternalPort><NewInternalClient>192.168.1.2</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>altnet</NewPortMappingDescription><NewLeaseDuration>7200</NewLeaseDuration></u:AddPortMapping></s:Body></s:Envelope>\r\n";
        assert_eq!(body, expected);
        let delete = Action::DeletePortMapping { external_port: 9 };
        let body = delete.body(Kind::WanPpp1);
        assert!(body.contains("<NewExternalPort>9</NewExternalPort><NewProtocol>UDP</NewProtocol></u:DeletePortMapping>"), "{body}");
        assert_eq!(
            delete.header(Kind::WanPpp1),
            "\"urn:schemas-upnp-org:service:WANPPPConnection:1#DeletePortMapping\""
        );
    }

    fn answered(inner: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>{inner}</s:Body></s:Envelope>"
        )
    }

    #[test]
    fn answers_are_read() {
        let address = "<u:GetExternalIPAddressResponse xmlns:u=\"x\"><NewExternalIPAddress>198.51.100.7</NewExternalIPAddress></u:GetExternalIPAddressResponse>";
        let external = Some(Ipv4Addr::new(198, 51, 100, 7));
        let expected = Answer {
            external,
            ..Answer::default()
        };
        assert_eq!(parse(200, &answered(address)), Ok(expected));
        let port = "<u:AddAnyPortMappingResponse><NewReservedPort>4661</NewReservedPort></u:AddAnyPortMappingResponse>";
        let expected = Answer {
            reserved_port: Some(4661),
            ..Answer::default()
        };
        assert_eq!(parse(200, &answered(port)), Ok(expected));
        let done = "<u:DeletePortMappingResponse/>";
        assert_eq!(parse(200, &answered(done)), Ok(Answer::default()));
        // Offline devices leave it empty.
        let none = "<u:GetExternalIPAddressResponse><NewExternalIPAddress></NewExternalIPAddress></u:GetExternalIPAddressResponse>";
        assert_eq!(parse(200, &answered(none)), Ok(Answer::default()));
    }

    #[test]
    fn a_fault_keeps_its_number() {
        let fault = answered(
            "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail></s:Fault>",
        );
        assert_eq!(parse(500, &fault), Err(CallError::Fault(718)));
        // Some say it with the wrong status, some break off after it.
        assert_eq!(parse(200, &fault), Err(CallError::Fault(718)));
        assert_eq!(
            parse(500, &fault[..fault.len() - 20]),
            Err(CallError::Fault(718))
        );
        assert_eq!(parse(500, "no"), Err(CallError::Status(500)));
        assert_eq!(parse(200, "no"), Err(CallError::Unreadable(BadXml)));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(body in "\\PC{0,200}", status: u16) {
            let _ = parse(status, &body);
            let _ = parse(status, &answered(&body));
        }
    }
}
