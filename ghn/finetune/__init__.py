"""Use predicted weights: fine-tune from them, and compare that with other initializations."""
