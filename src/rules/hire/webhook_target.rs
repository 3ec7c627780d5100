//! Where a webhook may be sent: to the public internet over https, and never into somebody's private network, for a
//! seeker chooses the URL and our server opens the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The parts of a URL as the runtime parses it (WHATWG): every spelling of an IPv4 address has become the dotted one,
/// and names are lower-case.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// With its colon: `https:`.
    pub scheme: &'a str,
    /// An IPv6 address is in brackets.
    pub host: &'a str,
    /// `None`: the scheme's own.
    pub port: Option<u16>,
    /// The URL names a user or a password.
    pub has_credentials: bool,
}

/// The longest URL that is taken, in bytes.
const MAX_URL: usize = 2048;
/// Ports from 1024 on where services answer that speak no HTTP, or databases and brokers that anybody might command with
/// a request: fetch's "bad ports", and the usual ports of such services.
const REFUSED_PORTS: [u16; 40] = [
    1433, 1434, 1521, 1719, 1720, 1723, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 4222,
    5060, 5061, 5432, 5672, 5900, 5984, 6000, 6379, 6380, 6443, 6566, 6667, 8086, 9042, 9092, 9200, 9300, 10_080,
    10_250, 11_211, 27_017,
];
/// IRC, which fetch refuses too.
const IRC_PORTS: [std::ops::RangeInclusive<u16>; 2] = [6665..=6669, 6697..=6697];

/// Whether all parsers read the same in a URL. The runtime's parser drops blanks and line breaks, and reads a backslash
/// as a slash; others read another host in such a text.
pub fn check_text(url: &str) -> Result<(), &'static str> {
    let is_plain = |c: char| c != '\\' && !c.is_control() && !c.is_whitespace();
    let has_host = url.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    match has_host && url.len() <= MAX_URL && url.chars().all(is_plain) {
        true => Ok(()),
        false => Err("a URL of at most 2048 characters, without blanks, line breaks and backslashes"),
    }
}

/// Whether a new contract may name this target: [`check`], and the port is none of another service.
pub fn check_new(target: Target<'_>, allow_loopback: bool) -> Result<(), &'static str> {
    check(target, allow_loopback)?;
    let is_own_machine = allow_loopback && is_loopback(target.host);
    match target.port.is_none_or(|port| is_own_machine || is_webhook_port(port)) {
        true => Ok(()),
        false => Err("port 443, or one from 1024 on that is not the usual one of another service"),
    }
}

fn is_webhook_port(port: u16) -> bool {
    let is_refused = REFUSED_PORTS.contains(&port) || IRC_PORTS.iter().any(|ports| ports.contains(&port));
    port == 443 || (port >= 1024 && !is_refused)
}

/// Whether a webhook may be sent there, whatever the port; the error says what would be. `allow_loopback` is for
/// development: this machine is allowed too, and over http.
pub fn check(target: Target<'_>, allow_loopback: bool) -> Result<(), &'static str> {
    if target.has_credentials {
        return Err("a URL without user and password");
    }
    if allow_loopback && is_loopback(target.host) && matches!(target.scheme, "http:" | "https:") {
        return Ok(());
    }
    if target.scheme != "https:" {
        return Err("an https URL");
    }
    match address(target.host) {
        Some(address) if is_public(address) => Ok(()),
        Some(_) => Err("a public address"),
        None if is_public_name(target.host) => Ok(()),
        None => Err("a public host"),
    }
}

/// The IP address that a host is; `None`: it is a name.
pub fn address(host: &str) -> Option<IpAddr> {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    v6.unwrap_or(host).parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|ip| ip.is_loopback())
}

/// Last labels of names that resolve within a private network only.
const PRIVATE_DOMAINS: [&str; 10] =
    ["localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "arpa", "onion"];

fn is_public_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    // A name of a single label is one of the local network.
    let last = host.rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| !PRIVATE_DOMAINS.contains(&last) && !last.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an address is reachable globally, by IANA's special-purpose address registries.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !matches!(
        ip.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Mapped (::ffff:0:0/96), translated (64:ff9b::/96) and 6to4 (2002::/16) addresses lead to an IPv4 address.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Of the assigned blocks only 2000::/3 is global unicast, without Teredo, benchmarks, ORCHID, documentation.
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}
