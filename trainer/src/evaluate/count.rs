//! pass@k.

/// The unbiased estimate of the chance that one of `k` solutions is correct, from `n` of which `correct`
/// are (Chen et al. 2021): `1 - C(n - c, k) / C(n, k)`. Nothing when `k` is above `n`.
///
/// # Panics
/// If more are correct than there are.
#[must_use]
pub fn pass_at_k(n: u32, correct: u32, k: u32) -> Option<f64> {
    assert!(correct <= n, "more are correct than there are");
    if k == 0 || k > n {
        return None;
    }
    if n - correct < k {
        return Some(1.0);
    }
    // C(n - c, k) / C(n, k) without large numbers.
    let none: f64 = (n - correct + 1..=n).map(|i| 1.0 - f64::from(k) / f64::from(i)).product();
    Some(1.0 - none)
}

#[cfg(test)]
mod tests {
    use super::pass_at_k;

    /// By counting all choices of `k` out of `n`.
    fn counted(n: u32, correct: u32, k: u32) -> f64 {
        let choices = (0..1_u32 << n).filter(|set| set.count_ones() == k);
        let (mut all, mut hit) = (0, 0);
        for set in choices {
            all += 1;
            hit += u32::from(set & ((1 << correct) - 1) != 0);
        }
        f64::from(hit) / f64::from(all)
    }

    #[test]
    fn it_is_the_share_of_all_choices_with_a_correct_one() {
        for n in 1..=9 {
            for correct in 0..=n {
                for k in 1..=n {
                    let estimate = pass_at_k(n, correct, k).expect("k is at most n");
                    assert!((estimate - counted(n, correct, k)).abs() < 1e-12, "{n} {correct} {k}");
                }
            }
        }
        assert_eq!(pass_at_k(3, 1, 4), None);
        assert_eq!(pass_at_k(3, 1, 0), None);
    }
}
