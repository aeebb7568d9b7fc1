//! Metrics of classification that depend on the order of scores.

use tomograd_core::{Error, Result};

/// The area under the ROC curve: the probability that a random positive case has a greater score than a random negative
/// one, where equal scores count half. NaN if there are no positive or no negative cases.
///
/// ```
/// use tomograd_pipeline::roc_auc;
/// assert_eq!(roc_auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?, 0.75);
/// assert_eq!(roc_auc(&[1.0, 1.0], &[false, true])?, 0.5);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When there isn't one score for each case, or a score is NaN.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Result<f64> {
    if scores.len() != positive.len() {
        let what = format!("{} scores for {} cases", scores.len(), positive.len());
        return Err(Error::argument("roc_auc", what).expected("one score for each case"));
    }
    if let Some(case) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::argument("roc_auc", format!("the score of case {case} is NaN")).expected("a number"));
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    // total_cmp separates -0 from 0, which are equal scores but neighbours in this order.
    let (mut below, mut wins) = (0.0, 0.0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let positives = equal.iter().filter(|&&case| positive[case]).count() as f64;
        let negatives = equal.len() as f64 - positives;
        wins += positives * (below + negatives / 2.0);
        below += negatives;
    }
    let positives = positive.iter().filter(|positive| **positive).count() as f64;
    Ok(wins / (positives * below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_share_of_pairs_in_the_right_order() {
        let scores = [0.3, -1.0, 0.3, 2.0, 0.0, -0.0, 1.5, 0.3, f64::INFINITY];
        let positive = [true, false, false, true, true, false, false, true, true];
        let (mut right, mut pairs) = (0.0, 0.0);
        for (i, _) in positive.iter().enumerate().filter(|(_, positive)| **positive) {
            for (j, _) in positive.iter().enumerate().filter(|(_, positive)| !**positive) {
                pairs += 1.0;
                right += if scores[i] > scores[j] {
                    1.0
                } else if scores[i] == scores[j] {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert_eq!(roc_auc(&scores, &positive).unwrap(), right / pairs);
    }

    #[test]
    fn what_is_undefined_is_nan_and_what_is_wrong_an_error() {
        assert!(roc_auc(&[1.0, 2.0], &[true, true]).unwrap().is_nan());
        assert!(roc_auc(&[], &[]).unwrap().is_nan());
        assert!(roc_auc(&[1.0], &[true, false]).is_err());
        assert!(roc_auc(&[1.0, f64::NAN], &[true, false]).is_err());
    }
}
