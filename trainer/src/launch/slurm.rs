//! Slurm's way to write lists of hosts.

/// More hosts than any machine has: a mistyped range must not fill the memory.
const MOST: u64 = 65_536;

/// The hosts of a list such as `a[001-003,7],b,rack[1-2]n[1-2]`, in order.
pub(super) fn expand(list: &str) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    for pattern in patterns(list)? {
        hosts.extend(hosts_of(pattern)?);
        if hosts.len() as u64 > MOST {
            return Err(format!("`{list}` has more than {MOST} hosts"));
        }
    }
    Ok(hosts)
}

/// The parts between commas that are not within brackets.
fn patterns(list: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut open) = (Vec::new(), 0, false);
    for (at, character) in list.char_indices() {
        match (character, open) {
            ('[', false) => open = true,
            (']', true) => open = false,
            ('[', true) | (']', false) => return Err(format!("`{list}`: brackets do not match")),
            (',', false) => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(format!("`{list}`: a bracket is not closed"));
    }
    parts.push(&list[start..]);
    if parts.iter().any(|part| part.trim().is_empty()) {
        return Err(format!("`{list}`: a name is empty"));
    }
    Ok(parts.into_iter().map(str::trim).collect())
}

/// All hosts of one pattern; the last bracket counts fastest.
fn hosts_of(pattern: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = pattern.split_once('[') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let Some((ranges, after)) = rest.split_once(']') else {
        return Err(format!("`{pattern}`: a bracket is not closed"));
    };
    let numbers = ranges.split(',').map(numbers_of).collect::<Result<Vec<_>, _>>()?.concat();
    let ends = hosts_of(after)?;
    if numbers.len() as u64 * ends.len() as u64 > MOST {
        return Err(format!("`{pattern}` has more than {MOST} hosts"));
    }
    let joined = |number: &String| {
        ends.iter().map(|end| format!("{before}{number}{end}")).collect::<Vec<_>>()
    };
    Ok(numbers.iter().flat_map(joined).collect())
}

/// The numbers of `7` or `001-003`, as wide as the first is written.
fn numbers_of(range: &str) -> Result<Vec<String>, String> {
    let bad = || format!("`{range}` is not a range of numbers");
    let digits = |text: &str| {
        let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| text.parse::<u64>().ok()).flatten()
    };
    let Some((first, last)) = range.split_once('-') else {
        return digits(range).map(|_| vec![range.to_owned()]).ok_or_else(bad);
    };
    let (from, to) = (digits(first).ok_or_else(bad)?, digits(last).ok_or_else(bad)?);
    if from > to || to - from >= MOST {
        return Err(bad());
    }
    let width = first.len();
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(list: &str) -> String {
        expand(list).expect("a list").join(" ")
    }

    #[test]
    fn lists_are_expanded_as_scontrol_does() {
        assert_eq!(all("node-1"), "node-1");
        assert_eq!(all("a[001-003,7],b"), "a001 a002 a003 a7 b");
        assert_eq!(all("a[08-11]"), "a08 a09 a10 a11");
        assert_eq!(all("r[1-2]n[1-2].x"), "r1n1.x r1n2.x r2n1.x r2n2.x");
        assert_eq!(all("a[1],b[2-2]"), "a1 b2");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "",
            ",",
            "a,,b",
            "a[",
            "a]",
            "a[1-2",
            "a[[1]]",
            "a[]",
            "a[x]",
            "a[2-1]",
            "a[-1]",
            "a[1-]",
            "a[+1-2]",
            "a[0-99999999]",
            "a[0-999][0-999]",
            "a[99999999999999999999]",
        ] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(list in "[a-c0-3\\[\\],\\-]{0,24}") {
            if let Ok(hosts) = expand(&list) {
                prop_assert!(!hosts.is_empty());
                prop_assert!(hosts.iter().all(|host| !host.is_empty()));
            }
        }

        #[test]
        fn a_range_has_all_its_numbers(from in 0_usize..2000, more in 0_usize..50, width in 1_usize..6) {
            let hosts = expand(&format!("h[{from:0width$}-{}]", from + more)).expect("a range");
            prop_assert_eq!(hosts.len(), more + 1);
            for (i, host) in hosts.iter().enumerate() {
                prop_assert_eq!(host[1..].parse::<usize>().expect("a number"), from + i);
            }
        }
    }
}
