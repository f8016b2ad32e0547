"""Graph passes by target: what a trace leaves as one node (attention, merging), spelled out in a target's operators."""
