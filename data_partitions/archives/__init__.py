"""One medical archive a file: its tables and images to exams."""
