"""CRISPRi screens: measured element-gene pairs, what simple scores say of them, how scores do."""
