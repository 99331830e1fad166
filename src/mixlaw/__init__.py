"""mixlaw: how much code goes with how much text, in which phase, and how to cool down."""
