"""Write predicted parameters into models."""
