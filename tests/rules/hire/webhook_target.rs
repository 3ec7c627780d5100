//! Where a webhook may be sent.

use coinslot::testing::rules::hire::webhook_target::{check, check_new, check_text, Target};

fn check_url(url: &str, development: bool) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("//").unwrap();
    let (credentials, host) = rest.rsplit_once('@').map_or((false, rest), |(_, host)| (true, host));
    check(Target { scheme, host, port: None, has_credentials: credentials }, development)
}

#[test]
fn the_public_internet_is_allowed_over_https() {
    for host in [
        "example.com",
        "hooks.example.co.uk",
        "localhost.example.com",
        "example.com.",
        "xn--bcher-kva.example",
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "169.253.0.1",
        "192.167.0.1",
        "198.17.0.1",
        "[2606:4700:4700::1111]",
        "[2a00:1450:4001::200e]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::808:808]",
        "[2002:808:808::1]",
    ] {
        assert_eq!(check_url(&format!("https://{host}"), false), Ok(()), "{host}");
        assert!(check_url(&format!("http://{host}"), false).is_err(), "http {host}");
        assert!(
            check_url(&format!("http://{host}"), true).is_err(),
            "in development http is for this machine alone: {host}"
        );
        assert!(check_url(&format!("https://user@{host}"), false).is_err(), "credentials {host}");
    }
    for scheme in ["ftp:", "file:", "ws:", "data:", "javascript:"] {
        assert!(
            check(Target { scheme, host: "example.com", port: None, has_credentials: false }, false).is_err(),
            "{scheme}"
        );
    }
}

#[test]
fn a_host_of_a_private_network_is_refused() {
    for host in [
        "localhost",
        "localhost.",
        "a.localhost",
        "printer",
        "router.local",
        "metadata.google.internal",
        "db.corp",
        "nas.home",
        "pi.lan",
        "1.0.0.10.in-addr.arpa",
        "x.onion",
        "",
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::a00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:db8::1]",
        "[2001::1]",
        "[2001:10::1]",
        "[3fff::1]",
        "[4000::1]",
        "10.255.255.255",
        "[::ffff:a00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "198.51.100.1",
        "203.0.113.1",
        "x.localhost",
        "a.b.localhost.",
        "intranet",
        "redis",
        "printer.local",
        "router.lan",
        "box.home.arpa",
        "1.0.0.127.in-addr.arpa",
        "x.corp",
    ] {
        assert!(check_url(&format!("https://{host}"), false).is_err(), "{host}");
    }
}

#[test]
fn in_development_this_machine_is_allowed_and_no_other() {
    for host in ["localhost", "127.0.0.1", "127.0.0.2", "[::1]"] {
        assert_eq!(check_url(&format!("http://{host}"), true), Ok(()), "{host}");
        assert_eq!(check_url(&format!("https://{host}"), true), Ok(()), "{host}");
        assert!(check_url(&format!("http://{host}"), false).is_err(), "{host}");
    }
    assert!(check_url("ftp://127.0.0.1", true).is_err());
    for host in ["10.0.0.1", "192.168.0.1", "169.254.169.254", "router.local", "[fe80::1]", "a.localhost"] {
        assert!(check_url(&format!("http://{host}"), true).is_err(), "{host}");
        assert!(check_url(&format!("https://{host}"), true).is_err(), "{host}");
    }
}

#[test]
fn a_port_of_another_service_is_refused_and_any_other_from_1024_on_is_allowed() {
    let target = |host, port| Target { scheme: "https:", host, port: Some(port), has_credentials: false };
    let to = |host, port, development| check_new(target(host, port), development);
    for port in [443, 1024, 2053, 3000, 4443, 5000, 8000, 8080, 8443, 8888, 9000, 9443, 10_000, 49_152, 65_535] {
        assert_eq!(to("agent.example", port, false), Ok(()), "{port}");
    }
    let low = [0, 1, 21, 22, 23, 25, 53, 80, 110, 143, 445, 465, 587, 993, 1023];
    let high = [
        1433, 1521, 1720, 2049, 2375, 3306, 3389, 3659, 4045, 5060, 5061, 5432, 5672, 6000, 6379, 6566, 6665, 6669,
        6697, 9042, 9200, 10_080, 11_211, 27_017,
    ];
    for port in low.into_iter().chain(high) {
        assert!(to("example.com", port, false).is_err() && to("1.1.1.1", port, true).is_err(), "{port}");
        assert_eq!(to("127.0.0.1", port, true), Ok(()), "on this machine, in development: {port}");
        assert_eq!(check(target("example.com", port), false), Ok(()), "of a contract that has it: {port}");
    }
    assert!(to("10.0.0.1", 8080, false).is_err() && check(target("10.0.0.1", 443), false).is_err());
}

#[test]
fn a_url_that_parsers_read_differently_is_refused() {
    for good in [
        "https://example.com",
        "https://example.com:8443/a?b=c&d=%20#e",
        "http://[::1]:9/",
        "https://b\u{fc}cher.example/{id}",
        "https://x.y/~a;b,c!$'()*+@:=",
    ] {
        assert_eq!(check_text(good), Ok(()), "{good}");
    }
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for bad in [
        "https://example.com\\@10.0.0.1/",
        "https:\\\\example.com",
        "https:/\\example.com",
        " https://example.com",
        "https://example.com ",
        "https://example.com/a b",
        "https://example.com/\r\nHost: x",
        "https://exam\nple.com",
        "\thttps://example.com",
        "https://example.com/\u{a0}",
        "https://example.com/\u{0}",
        "https://example.com/\u{2028}",
        "https:example.com",
        "https:///example.com",
        "example.com",
        "",
        &long,
    ] {
        assert!(check_text(bad).is_err(), "{bad:?}");
    }
}
