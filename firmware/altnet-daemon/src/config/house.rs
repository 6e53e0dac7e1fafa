//! What altnetd takes from `[router]`: the networks of the house are its LANs, and it is their resolver.
//!
//! `altnet-routerd` carries the section out, advertises on those networks, and goes on when altnetd doesn't.

use std::net::SocketAddr;
use std::path::Path;

use altnet_router::board::Ports;
use altnet_router::house::{Altnet, House};

use super::{Advertise, Config, ConfigError, Lan, MAX_LANS};
use crate::dns::PORT;

impl Config {
    /// Checks `[router]` as a whole, and lets what the file leaves out about LANs follow from it.
    ///
    /// # Errors
    /// [`ConfigError::House`] with all that is wrong.
    pub(super) fn settle(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let Some(router) = &self.router else {
            return Ok(());
        };
        let house = router
            .resolve(&Ports::any(), &self.altnet())
            .map_err(|wrongs| wrongs.in_file(path, text))?;
        if self.lan.is_empty() {
            let networks = house.networks().iter();
            let private = networks.filter(|network| house.is_private(network));
            let lan = private.map(|network| Lan {
                interface: network.bridge.clone(),
                site: None,
                advertise: Advertise::Off,
            });
            self.lan = lan.take(MAX_LANS).collect();
        }
        Ok(())
    }

    /// The house that `[router]` makes, on a board that has every port it names.
    pub fn house(&self) -> Option<House> {
        let router = self.router.as_ref()?;
        router.resolve(&Ports::any(), &self.altnet()).ok()
    }

    fn altnet(&self) -> Altnet {
        Altnet {
            listen_port: self.listen_port,
            tun: self.tun.name.clone(),
            socket: self.api.socket.clone(),
        }
    }
}

/// Where the box is asked for names: its IPv4 address on each network. Who may ask, the firewall knows.
pub fn resolver_addresses(house: &House) -> Vec<SocketAddr> {
    let networks = house.networks().iter();
    networks
        .map(|network| SocketAddr::new(network.ipv4.addr().into(), PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("altnet.toml"), text)
    }

    #[test]
    fn the_networks_of_a_house_are_lans_and_are_asked_for_names() {
        let config = parse(
            "[router]\n[[router.network]]\nname = \"lan\"\n[[router.network]]\nname = \"guest\"\nports = [\"port:lan2\"]\n",
        );
        let config = config.unwrap();
        let bridges: Vec<&str> = config
            .lan
            .iter()
            .map(|lan| lan.interface.as_str())
            .collect();
        assert_eq!(bridges, ["br-lan"], "guests are not of the private network");
        assert!(config.lan.iter().all(|lan| lan.advertise == Advertise::Off));
        let asked = resolver_addresses(&config.house().unwrap());
        assert_eq!(
            asked,
            [
                "192.168.77.1:53".parse().unwrap(),
                "192.168.78.1:53".parse().unwrap()
            ]
        );
        assert_eq!(parse("").unwrap().house(), None);
    }

    #[test]
    fn what_the_file_says_about_lans_stays() {
        let config = parse("[[lan]]\ninterface = \"br-lan\"\nsite = 3\n[router]\n").unwrap();
        assert_eq!(config.lan.len(), 1);
        assert!(config.lan[0].site.is_some());
    }

    #[test]
    fn a_wrong_router_is_told_with_all_that_is_wrong() {
        let error = parse(
            "[router]\n[[router.forward]]\nport = 51820\nprotocol = \"udp\"\nto = \"192.168.77.10\"\n[[router.rule]]\nfrom = \"nowhere\"\nto = \"wan\"\naction = \"accept\"\n",
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("51820") && error.contains("nowhere"),
            "{error}"
        );
    }
}
