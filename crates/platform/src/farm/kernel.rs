//! What the kernel must offer: `bpf_skc_lookup_tcp` (5.2), bounded loops (5.3), the boot-time clock in programs (5.8).

/// The oldest kernel on which the filter loads.
pub const NEEDED: &str = "5.8";
const OLDEST: (u32, u32) = (5, 8);
/// From here on filters are attached as TCX links.
const TCX: (u32, u32) = (6, 6);

/// `uname -r`.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Can the filter be loaded on a kernel of this release? One whose release is unreadable is tried.
#[must_use]
pub fn is_new_enough(release: &str) -> bool {
    version(release).is_none_or(|version| version >= OLDEST)
}

pub fn has_tcx(release: &str) -> bool {
    version(release).is_some_and(|version| version >= TCX)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for new in ["5.8.0", "5.10.0-30-amd64", "6.1", "10.0-rc1", "6.18.44-fc-v669"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["5.7.19", "4.18.0-553.el8", "3.10.0"] {
            assert!(!is_new_enough(old), "{old}");
        }
        assert!(is_new_enough("unreadable"));
        assert!(has_tcx("6.6.1") && has_tcx("6.12.0-amd64") && !has_tcx("6.5.0") && !has_tcx("5.15"));
    }
}
