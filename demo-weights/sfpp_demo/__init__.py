"""The demonstration weights of sfpp; the README of this package says what they are and on what terms."""
