"""What types and signatures say, as JSON schemas, and answers as values of them. No I/O."""
