//! Values out of text: is this text what the row of the table asks for, and what is it then?

use super::suggest::{listed, nearest};
use super::table::{AttributeRow, ElementRow, Kind};
use super::tree::Element;
use super::units::milliseconds;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// Why `value` is not of this kind: the end of a sentence that begins with the value; and what helps.
#[must_use]
pub fn problem(kind: Kind, value: &str) -> Option<(String, Option<String>)> {
    let plain = |text: &str| Some((text.to_string(), None));
    match kind {
        Kind::Text => None,
        Kind::Name => crate::NodeName::new(value).is_err().then(|| {
            ("is not a valid name: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and do not begin with a dot or a dash".to_string(), None)
        }),
        Kind::Identifier => {
            let valid = !value.is_empty()
                && value.len() <= 128
                && !value.starts_with(|c: char| c.is_ascii_digit())
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if valid { None } else { plain("is not a valid name: use letters, digits and _, and do not begin with a digit") }
        }
        Kind::OnOff => (!matches!(value, "on" | "off")).then(|| ("is neither on nor off".to_string(), None)),
        Kind::Choice(words) => (!words.contains(&value)).then(|| {
            let help = nearest(value, words.iter().copied()).map(|word| format!("did you mean '{word}'?"));
            (format!("is not one of: {}", listed(words.iter().copied())), help)
        }),
        Kind::Integer(min, max) => match value.trim().parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            Ok(_) => Some((format!("is not between {min} and {max}"), None)),
            Err(_) => plain("is not a whole number"),
        },
        Kind::Signed(min, max) => match value.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            Ok(_) => Some((format!("is not between {min} and {max}"), None)),
            Err(_) => plain("is not a whole number"),
        },
        Kind::Time(unit, min, max) => match milliseconds(value, unit) {
            Ok(ms) if (min..=max).contains(&ms) => None,
            Ok(_) => Some((format!("is not between {} and {}", time_text(min), time_text(max)), None)),
            Err(end) => Some((end, None)),
        },
        Kind::Address | Kind::AddressToFill => address(value).err(),
        Kind::Host => if is_host(value) { None } else { plain("is neither an IP address nor a host name") },
        Kind::Mac => if is_mac(value) { None } else { plain("is not a hardware address: write six pairs of digits, as in 5a:fe:0a:00:01:64") },
        Kind::Addresses => {
            if value.split_whitespace().next().is_none() {
                return plain("names no address");
            }
            value.split_whitespace().find_map(|one| address(one).err().map(|(end, help)| (format!("has '{one}', which {end}"), help)))
        }
        Kind::Netmask => netmask(value).is_none().then(|| ("is not a netmask: write one such as 255.255.255.0".to_string(), None)),
        Kind::AbsolutePath => path(value, true),
        Kind::RelativePath => path(value, false),
        Kind::NamePattern | Kind::Pattern => crate::patterns::check(value)
            .err()
            .map(|why| (format!("is not an extended regular expression: {why}"), None)),
        Kind::Schedule if value.trim().is_empty() => None,
        Kind::Schedule => crate::schedule::Schedule::new(value)
            .err()
            .map(|why| (format!("is no schedule: {why}"), None)),
        Kind::Word => if value.trim().is_empty() { plain("is empty") } else { None },
        Kind::Names => value
            .split(',')
            .any(|name| name.trim().is_empty() || name.trim().contains(char::is_whitespace))
            .then(|| ("is not a list of names with commas between them".to_string(), None)),
        Kind::Url => if is_url(value) { None } else { plain("is not a URL: write http:// or https://, a host, and a path, as in https://10.0.1.100:8443/health") },
    }
}

/// Milliseconds as a person writes them.
#[must_use]
pub fn time_text(ms: u64) -> String {
    if ms == 0 {
        return "0".to_string();
    }
    for (scale, suffix) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{suffix}", ms / scale);
        }
    }
    format!("{ms}ms")
}

/// Prefix length of a dotted mask.
#[must_use]
pub fn netmask(text: &str) -> Option<u8> {
    let bits = u32::from(text.trim().parse::<Ipv4Addr>().ok()?);
    let prefix = bits.leading_ones();
    (prefix > 0 && bits.leading_ones() + bits.trailing_zeros() == 32).then_some(u8::try_from(prefix).ok()?)
}

/// A host name, and no address.
pub(super) fn is_host_name(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().is_err() && is_host(text)
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Only digits in the last label: an address with a slip in it, which no resolver should be asked for.
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

fn is_mac(text: &str) -> bool {
    mac(text).is_some()
}

/// A hardware address: six pairs of digits.
pub(super) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut pairs = text.split([':', '-']);
    for byte in &mut mac {
        let pair = pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(mac)
}

fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn address(text: &str) -> Result<IpAddr, (String, Option<String>)> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if text.is_empty() {
        return Err(("is empty: an IP address belongs here".to_string(), None));
    }
    let ip: IpAddr = bare.parse().map_err(|_| {
        (
            "is neither an IP address nor a host name".to_string(),
            Some("an address has four numbers up to 255 with dots between, or is an IPv6 address".to_string()),
        )
    })?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(("is not the address of a machine on a network".to_string(), None));
    }
    Ok(ip)
}

fn path(text: &str, absolute: bool) -> Option<(String, Option<String>)> {
    let plain = |text: &str| Some((text.to_string(), None));
    if text.is_empty() {
        return plain("is empty: a path belongs here");
    }
    if text.contains(|c: char| c.is_control()) {
        return plain("has a control character in it");
    }
    if text.len() > 4_000 {
        return plain("is longer than any path of this system");
    }
    if is_of_windows(text) {
        return Some((
            "is a path of Windows".to_string(),
            Some("write where it is on these nodes: '/srv/app/data'".to_string()),
        ));
    }
    if absolute != text.starts_with('/') {
        return if absolute {
            Some(("is not an absolute path".to_string(), Some(format!("begin it with a slash: '/{text}'"))))
        } else {
            Some((
                "is not a relative path".to_string(),
                Some(format!("it counts from the replicated directory: '{}'", text.trim_start_matches('/'))),
            ))
        };
    }
    if text.split('/').any(|part| part == "." || part == "..") {
        return plain("has '.' or '..' in it: write the path itself");
    }
    if absolute && normal_path(text) == "/" {
        return plain("is the root of the system, which cannot be replicated");
    }
    None
}

/// `D:\VM1`, `D:/VM1`, `\\server\share`. A backslash elsewhere is a letter like any other.
fn is_of_windows(text: &str) -> bool {
    let drive = text.strip_prefix(|c: char| c.is_ascii_alphabetic()).and_then(|rest| rest.strip_prefix(':'));
    drive.is_some_and(|rest| rest.is_empty() || rest.starts_with(['\\', '/'])) || text.starts_with("\\\\")
}

/// The path without doubled or trailing slashes.
#[must_use]
pub fn normal_path(text: &str) -> String {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let joined = parts.join("/");
    if text.starts_with('/') { format!("/{joined}") } else { joined }
}

/// Reads attributes of one element with the defaults of its row. Wrong values read as the default: the
/// checker has already refused them.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The element.
    pub element: &'a Element,
    /// Its row.
    pub row: &'a ElementRow,
}

impl<'a> Reader<'a> {
    /// The text, or the default, or nothing.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let row: &AttributeRow = self.row.attribute(name)?;
        self.element.value(name).filter(|value| problem(row.kind, value).is_none()).or(row.default)
    }

    /// Milliseconds of a time.
    #[must_use]
    pub fn milliseconds(&self, name: &str) -> Option<u64> {
        let Kind::Time(unit, ..) = self.row.attribute(name)?.kind else { return None };
        milliseconds(self.text(name)?, unit).ok()
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// `on`.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("on")
    }

    /// An address.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        address(self.text(name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_paths_and_times() {
        assert_eq!(netmask("255.255.255.0"), Some(24));
        assert_eq!(netmask("255.255.255.255"), Some(32));
        assert_eq!(netmask("255.0.255.0"), None);
        assert_eq!(netmask("0.0.0.0"), None);
        assert_eq!(normal_path("//srv///a/"), "/srv/a");
        assert_eq!(normal_path("a//b/"), "a/b");
        assert_eq!(time_text(90_000), "90s");
        assert_eq!(time_text(60_000), "1m");
        for bad in ["srv", "/", "//", "/a/../b", "/a/./b", "", "/a\nb"] {
            assert!(problem(Kind::AbsolutePath, bad).is_some(), "{bad:?}");
        }
        assert!(problem(Kind::AbsolutePath, "/srv/with space/é").is_none());
        for good in ["10.0.1.1", "[fd00::1]", "fd00::1", "db", "db-1.example.com", "192.168.0.0"] {
            assert!(problem(Kind::Host, good).is_none(), "{good:?}");
        }
        for bad in ["", "10.0.1.300", "a b", "-db", "db..com", "http://db"] {
            assert!(problem(Kind::Host, bad).is_some(), "{bad:?}");
        }
        for good in ["http://db/", "https://10.0.1.100:8443/a?b#c", "http://[fd00::1]:80", "http://[fd00::1]/x"] {
            assert!(problem(Kind::Url, good).is_none(), "{good:?}");
        }
        for bad in ["", "db/", "ftp://db/", "http://", "http://db:0/", "http://db:x/", "http://d b/"] {
            assert!(problem(Kind::Url, bad).is_some(), "{bad:?}");
        }
        assert!(problem(Kind::Mac, "5A:FE:0a:00:01:64").is_none() && problem(Kind::Mac, "5A:FE:0a:00:01").is_some());
    }
}
