//! Directory listings, as an HTML page or as JSON.

mod html;
mod json;

pub(super) use html::html;
pub(super) use json::json;

#[cfg(test)]
mod tests {
    use crate::fs::directory::{Entry, Listing};

    pub(super) fn sample() -> Listing {
        let entry = |name: &str, is_directory, size| Entry { name: name.into(), is_directory, size, modified: 0 };
        Listing::new(vec![entry("z.txt", false, 1536), entry("<b>&\"'.html", false, 10), entry("a?#%b", true, 0)], 3)
    }
}
