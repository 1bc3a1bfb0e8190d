"""What values must look like: validators, the annotations and signatures they are made from, and tables."""
