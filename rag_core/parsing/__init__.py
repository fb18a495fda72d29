"""From an object's bytes to Markdown documents: telling the format, extracting text, doing it in a child process."""
