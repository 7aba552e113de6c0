"""Words of a DICOM header that may be repeated: a value is taken only when it is one of the standard's own.

A field for a code is free text to whoever types it, and may hold a name. Nothing else of a header's text leaves these modules.
"""

from __future__ import annotations

__all__ = ["BODY_PARTS", "MODALITIES", "VIEW_POSITIONS", "known"]

MODALITIES = frozenset(
    # PS3.3, C.7.3.1.1.1, defined terms of Modality (0008,0060), for objects with pixels, and retired ones that archives hold.
    """AR BI BMD CF CR CS CT DD DF DG DM DMS DS DX EC EPS ES FA FID FS GM IO IVOCT IVUS KER LEN LP LS MA MG MR MS NM OAM OCT OP OPM
    OPR OPT OPTBSV OPTENF OPV OSS OT PA POS PT PX REG RF RG RTDOSE RTIMAGE SEG SM SMR SRF ST TG US VA VF VL XA XC""".split()  # noqa: SIM905
)
BODY_PARTS = frozenset(
    # PS3.16, annex L, table L-1 ("Body Part Examined" column), and HEADNECK and EXTREMITY of older editions.
    """ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS CALF CAROTID
    CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE
    CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT GALLBLADDER HAND HEAD HEADNECK HEART HIP
    HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST
    NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RECTUM RIB SCALP
    SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM STOMACH SUBMANDIBULAR TESTIS THIGH THUMB THYMUS THYROID
    TLSPINE TOE TONGUE TRACHEA TSPINE UMBILICUS URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA""".split()  # noqa: SIM905
)
VIEW_POSITIONS = frozenset(
    # PS3.3, C.8.1.2 (CR Series: View Position) and CID 4014 of PS3.16 for mammography.
    """AP PA LL RL RLD LLD RLO LLO LAT LATERAL MLO ML LM LMO CC CCFB FB SIO ISO XCC XCCL XCCM CV AT RM RL TAN""".split()  # noqa: SIM905
)


def known(value: object, terms: frozenset[str]) -> str:
    """The value in capitals when it is one of the terms, else an empty text."""
    term = str(value or "").strip().upper()
    return term if term in terms else ""
