//! The port of the server, and those of the pool.

use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs as _};

use super::finding::Finding;
use crate::config::{PortPoolSettings, Settings};

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    vec![server_port(&settings.server.host, settings.server.port), pool(&settings.port_pool)]
}

fn server_port(host: &str, port: u16) -> Finding {
    let subject = "server port";
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match (bare, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(error) => {
            let advice = "set [server] host to an address of this machine";
            return Finding::failed(subject, format!("{host} is not known: {error}"), advice);
        }
    };
    match TcpListener::bind(&addresses[..]) {
        Ok(_) => Finding::ok(subject, format!("{host}:{port} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::warning(
            subject,
            format!("{host}:{port} is in use"),
            "nothing if it is this server that runs; else choose another with [server] port",
        ),
        Err(error) => Finding::failed(
            subject,
            format!("{host}:{port} cannot be used: {error}"),
            "choose another with [server] host and port",
        ),
    }
}

fn pool(pool: &PortPoolSettings) -> Finding {
    let ports = pool.start..pool.end;
    let total = ports.len();
    let held: Vec<u16> =
        ports.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_err()).collect();
    let subject = "worker ports";
    if total == 0 {
        return Finding::failed(
            subject,
            format!("there are none from {} to before {}", pool.start, pool.end),
            "choose a range with [port_pool] start and end",
        );
    }
    let range = format!("{} to {}", pool.start, pool.end - 1);
    match held.len() {
        0 => Finding::ok(subject, format!("all {total} are free ({range})")),
        count if count == total => Finding::failed(
            subject,
            format!("none of {total} is free ({range})"),
            "choose another range with [port_pool] start and end",
        ),
        count => Finding::ok(
            subject,
            format!("{} of {total} are free ({range}); held: {}", total - count, some(&held)),
        ),
    }
}

fn some(ports: &[u16]) -> String {
    let shown = ports.iter().take(10).map(u16::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() > 10 { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn held_ports_are_named() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = holder.local_addr().expect("known").port();
        assert_eq!(server_port("127.0.0.1", port).level, Level::Warning);
        let only = PortPoolSettings { start: port, end: port + 1 };
        assert_eq!(pool(&only).level, Level::Failed);
        let wider = pool(&PortPoolSettings { start: port - 20, end: port + 1 });
        assert!(wider.text.contains(&port.to_string()), "{wider:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        assert_eq!(server_port("192.0.2.1", 8001).level, Level::Failed);
    }
}
