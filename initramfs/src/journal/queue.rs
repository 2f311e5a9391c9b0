//! Lines of the log that are not on the disk yet: a queue of bounded size. PID 1 puts them in and never waits; the
//! thread of [`super::writer`] takes them out.

use std::collections::VecDeque;

/// A line, with the end of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// JSON.
    pub text: Vec<u8>,
    /// Whether it must be on the disk soon: priority error and worse.
    pub urgent: bool,
}

/// Lines in the order in which they came. When there is no room the oldest go.
#[derive(Debug, Default)]
pub struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    limit: usize,
    lost: u64,
}

impl Queue {
    /// A queue for so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Adds a line. One that is longer than the whole queue is lost.
    pub fn push(&mut self, line: Line) {
        if line.text.len() > self.limit {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.bytes = self.bytes.saturating_add(line.text.len());
        self.lines.push_back(line);
        while self.bytes > self.limit
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.text.len());
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Takes the oldest lines, at most `bytes` of them but at least one, and how many were lost before them.
    pub fn take(&mut self, bytes: usize) -> (Vec<Line>, u64) {
        let mut taken = Vec::new();
        let mut length = 0usize;
        while let Some(line) = self.lines.pop_front() {
            length = length.saturating_add(line.text.len());
            if length > bytes && !taken.is_empty() {
                self.lines.push_front(line);
                break;
            }
            self.bytes = self.bytes.saturating_sub(line.text.len());
            taken.push(line);
        }
        (taken, std::mem::take(&mut self.lost))
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines that wait, the oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| line.text.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every line comes out once, in order, or is counted as lost; the size is never above the limit.
        #[test]
        fn any_use(steps in proptest::collection::vec((0usize..30, any::<bool>()), 0..200)) {
            let mut queue = Queue::new(64);
            let (mut put, mut got, mut lost) = (0u64, Vec::new(), 0);
            for (length, take) in steps {
                if take {
                    let (lines, gone) = queue.take(length);
                    prop_assert!(lines.len() <= 1 || lines.iter().map(|line| line.text.len()).sum::<usize>() <= length);
                    got.extend(lines);
                    lost += gone;
                } else {
                    let mut text = put.to_be_bytes().to_vec();
                    text.extend(vec![0; length * 3]);
                    put += 1;
                    queue.push(Line { text, urgent: false });
                }
                prop_assert!(queue.bytes <= 64);
                prop_assert_eq!(queue.lines().map(<[u8]>::len).sum::<usize>(), queue.bytes);
            }
            let (rest, gone) = queue.take(usize::MAX);
            got.extend(rest);
            lost += gone;
            prop_assert_eq!(got.len() as u64 + lost, put);
            prop_assert!(got.is_sorted_by(|a, b| a.text[..8] < b.text[..8]));
            prop_assert!(queue.is_empty());
        }
    }
}
