//! A plain table: columns two spaces apart, as wide as their widest cell, nothing wrapped, stable when piped.

/// Lays out rows under a header; `paint` gets (row, column, padded text) of every body cell.
pub fn table(header: &[&str], rows: &[Vec<String>], paint: impl Fn(usize, usize, String) -> String) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let last = header.len().saturating_sub(1);
    let pad = |text: &str, column: usize| {
        let missing = if column == last { 0 } else { widths[column].saturating_sub(text.chars().count()) };
        format!("{text}{}", " ".repeat(missing))
    };
    let head: Vec<String> = header.iter().enumerate().map(|(column, text)| pad(text, column)).collect();
    let mut text = format!("{}\n", head.join("  ").trim_end());
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .take(header.len())
            .enumerate()
            .map(|(column, cell)| paint(number, column, pad(cell, column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// No colours.
pub fn plain(_: usize, _: usize, text: String) -> String {
    text
}
