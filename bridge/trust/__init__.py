"""How two endpoints come to trust each other, and what makes their bytes trustworthy."""
