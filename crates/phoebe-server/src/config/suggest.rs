//! Suggestions for misspelled words.

/// Returns the candidate nearest to `word`, if it is similar enough.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let slip = strsim::osa_distance(&word, &candidate) <= 1 && word.len() > 1;
        slip || strsim::jaro_winkler(&word, &candidate) > 0.8
    };
    candidates
        .into_iter()
        .filter(|candidate| near(candidate))
        .max_by(|left, right| likeness(&word, left).total_cmp(&likeness(&word, right)))
}

fn likeness(word: &str, candidate: &str) -> f64 {
    strsim::jaro_winkler(word, &candidate.to_lowercase())
}
